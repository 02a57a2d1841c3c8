"""Made-up names for rooms, devices and things.

The training lines name 100 devices in 30 rooms; a home has others. Each name here is drawn from words of everyday
homes, from the words of other training lines, or from syllables that form no word at all, so that the model learns
to copy what it reads and not to recall what it saw.
"""

from random import Random

ROOMS = """kitchen|living room|bedroom|bathroom|garage|basement|attic|office|hallway|entrance|dining room|laundry room|
nursery|garden|patio|terrace|balcony|cellar|workshop|study|library|den|guest room|playroom|pantry|closet|porch|hall|
foyer|lounge|family room|utility room|gym|sauna|shed|garden shed|greenhouse|driveway|backyard|front yard|yard|deck|pool|
toilet|shower|stairs|stairwell|landing|corridor|lobby|reception|meeting room|conference room|server room|warehouse|
storage|storage room|mud room|sun room|music room|game room|media room|craft room|kids room|storeroom|boiler room|
control room|pump house|packing hall|loading dock|cold store|line one|line two|line five|compressor room|barn|stable|
carport|wardrobe|bar|wine cellar|winter garden|conservatory|rec room|home office|theater|cinema|engine room|bay three|
cabin|canteen|lab|clean room|paint shop|gallery|store|shop floor|yard gate|tool room|break room|changing room|house""".replace(
    "\n", ""
).split(
    "|"
)
ROOM_ADJECTIVES = "master|guest|upstairs|downstairs|north|south|east|west|back|front|main|small|big|old|new|kids|left|right|upper|lower|alice's|bob's".split(
    "|"
)
FLOORS = """first floor|second floor|third floor|fourth floor|ground floor|basement|attic|upstairs|downstairs|mezzanine|
rooftop|top floor|upper floor|lower floor|main floor|bottom floor|cellar level|level one|level two|lower level|
upper level|floor two|fifth floor|loft|middle floor""".replace("\n", "").split("|")
DEVICES = """lamp|light|fan|switch|tv|speaker|plug|outlet|heater|thermostat|blind|curtain|door|window|gate|valve|sensor|
lock|vacuum|pump|siren|sprinkler|radio|stereo|monitor|printer|kettle|oven|fridge|freezer|washer|dryer|dishwasher|camera|
humidifier|purifier|boiler|strip|bulb|chandelier|lantern|spotlight|display|shade|shutter|awning|hood|charger|router|
coffee maker|toaster|meter|detector|alarm|motor|conveyor|extractor|compressor|mixer|projector|screen|tablet|phone|
laptop|console|clock|mower|feeder|fountain|tank|battery|inverter|panel|cabinet|drawer|hatch|robot|bed|desk|remote""".replace(
    "\n", ""
).split(
    "|"
)
PLACES = "ceiling|floor|wall|desk|bedside|corner|window|front|back|left|right|upper|lower|main|outdoor|rear|side|night|reading|table|tree|porch|pantry|counter|hall|street|garden|sofa|shelf|mirror".split(
    "|"
)
PEOPLE = "alice|bob|carol|dave|emma|frank|grace|henry|isabel|jack|kate|liam|mia|noah|olivia|paul|quinn|rosa|sam|tom|uma|victor|wendy|zoe|anna|ben|chris|diana|erik|fatima|george|hannah|ivan|julia|mom|dad|grandma|john|mary|peter|sarah".split(
    "|"
)
ZONES = "home|work|school|the gym|the office|away|the beach|the cabin|the park|the store|college|church|the lake|the studio|grandma's house|the farm|the airport".split(
    "|"
)
THINGS = """milk|eggs|bread|butter|apples|bananas|rice|pasta|coffee|tea|sugar|salt|pepper|flour|cheese|chicken|beef|soap|
shampoo|toothpaste|paper towels|toilet paper|batteries|light bulbs|screws|nails|bleach|dog food|cat litter|tomatoes|
onions|potatoes|oranges|lettuce|cereal|yogurt|juice|water|wine|beer|olive oil|garlic|honey|jam|cookies|chips|napkins|
foil|detergent|trash bags|cable ties|work gloves|tape|glue|paint|brushes|a dozen roses|flowers|candles|two lemons|
cake|clean the gutters|call the dentist|wash the car|water the plants|mail the letter""".replace(
    "\n", ""
).split(
    "|"
)
TIMERS = "pizza|pasta|eggs|tea|laundry|bread|chicken|rice|roast|cookies|cake|potatoes|steak|nap|workout|homework|meditation|oven|dishes|bath|coffee|soup|break|turkey|beans|lasagna|vegetables|dough|first|second|egg|study".split(
    "|"
)
LISTS = "shopping|grocery|to do|todo|chores|packing|weekend|work|hardware|party|holiday|wish|reading|movies|errands|project|gift|camping|school|my".split(
    "|"
)
COLORS = "red|green|blue|yellow|orange|purple|pink|white|black|brown|turquoise|cyan|magenta|violet|teal|gold".split("|")
MEDIA = """some jazz|the beatles|queen|taylor swift|rain sounds|white noise|classical music|country roads|the rolling stones|
hotel california|bohemian rhapsody|abbey road|thriller|the daily|stranger things|breaking bad|the matrix|star wars|
frozen|miles davis|daft punk|radiohead|pink floyd|dark side of the moon|morning news|lofi beats|ocean waves|top hits|
workout mix|dinner party|imagine|yesterday|inception|the office|friends|planet earth|nirvana|adele|coldplay|abba""".replace(
    "\n", ""
).split(
    "|"
)
SYLLABLES_ON = "b|c|d|f|g|h|j|k|l|m|n|p|r|s|t|v|w|z|br|cr|dr|fl|gr|kl|pl|pr|sh|st|sn|th|tr|ch|bl|qu|y".split("|")
SYLLABLES_MID = "a|e|i|o|u|ee|oo|ai|ou|ea|y".split("|")
SYLLABLES_OFF = "|b|d|g|k|l|m|n|p|r|s|t|x|nd|rt|st|sk|ll|ck|mp|ng".split("|")
# What a device is called when its kind is known; the wording alone often does not tell a door from a window.
HINTS = {
    "light": "lamp|light|bulb|chandelier|strip|spotlight",
    "fan": "fan|ceiling fan|ventilator",
    "lock": "lock|door|gate|front door",
    "cover": "blind|curtain|shutter|shade|awning|garage door|gate",
    "valve": "valve|water valve|tap",
    "switch": "switch|plug|outlet",
    "scene": "party time|movie night|bedtime|good morning|dinner|relax|reading|goodnight",
    "script": "bedtime routine|cleanup|wake up|lockdown|test script",
    "door": "door|front door|back door",
    "window": "window|skylight",
    "garage_door": "garage door|garage",
    "garage": "garage door",
    "smoke": "smoke alarm|smoke detector",
    "motion": "motion sensor|hall sensor",
    "battery": "phone|tablet|remote",
    "battery_charging": "phone|laptop|car",
    "plug": "plug|charger|socket",
    "gas": "gas sensor|stove",
    "carbon_monoxide": "co alarm|carbon monoxide detector",
    "lock_state": "lock",
    "moisture": "leak sensor|flood sensor|sink|cellar floor",
    "connectivity": "router|bridge|access point|nas",
    "running": "washer|dishwasher|dryer",
    "opening": "hatch|cabinet|drawer|mailbox",
    "vibration": "washing machine|motor",
    "sound": "baby monitor|microphone",
    "heat": "boiler|stove|oven",
    "cold": "freezer|fridge",
    "tamper": "safe|cash box|meter box",
    "update": "hub|firmware|router",
    "safety": "pool|gate|machine",
    "power": "outlet|heater",
    "temperature": "thermometer|sensor|fridge",
    "humidity": "hygrometer|sensor",
    "energy": "meter|solar panel",
    "weight": "scale",
    "speed": "car|fan",
    "wind_speed": "weather station|anemometer",
    "occupancy": "desk|room sensor|bed",
    "presence": "phone|car",
    "problem": "pump|printer|boiler",
    "curtain": "curtain",
    "blind": "blind",
    "shutter": "shutter",
}


class Namer:
    """Draws names. `words` are ordinary words to build odd names from, such as `purple invoice`."""

    def __init__(self, random: Random, words: list[str]):
        self.random, self.words = random, words

    def invented(self) -> str:
        """A word that no dictionary has."""
        draw = self.random.choice
        syllables = self.random.choice((1, 2, 2, 2, 3))
        return "".join(draw(SYLLABLES_ON) + draw(SYLLABLES_MID) + draw(SYLLABLES_OFF) for _ in range(syllables))

    def phrase(self, words_max: int) -> str:
        return " ".join(self.random.choice(self.words) for _ in range(self.random.randint(1, words_max)))

    def area(self) -> str:
        pick = self.random.random()
        if pick < 0.6:
            return self.random.choice(ROOMS)
        if pick < 0.75:
            return f"{self.random.choice(ROOM_ADJECTIVES)} {self.random.choice(ROOMS)}"
        ending = self.random.choice("room|room|hall|house|floor area|bay|zone|lab|office|corner".split("|"))
        return f"{self.invented() if pick < 0.9 else self.random.choice(self.words)} {ending}"

    def device(self, kind: str | None) -> str:
        noun = self.random.choice(HINTS[kind].split("|")) if kind in HINTS else self.random.choice(DEVICES)
        pick = self.random.random()
        if pick < 0.3:
            return f"{self.random.choice(ROOMS)} {noun}"
        if pick < 0.45:
            return f"{self.random.choice(PLACES)} {noun}"
        if pick < 0.55:
            return f"{self.random.choice(PEOPLE)}'s {noun}"
        if pick < 0.65:
            return noun
        if pick < 0.75:
            return f"{self.invented()} {noun}"
        if pick < 0.82:
            return f"{noun} {self.random.choice(['one', 'two', '1', '2', '3', 'left', 'right', 'b', '12'])}"
        return self.invented() if pick < 0.9 else self.phrase(3)

    def mixed(self, usual: list[str], words_max: int) -> str:
        """Mostly a usual value, else something odd."""
        pick = self.random.random()
        if pick < 0.5:
            return self.random.choice(usual)
        return self.invented() if pick < 0.65 else self.phrase(words_max)


def every_word() -> list[str]:
    """All words that names are made of, for the vocabulary."""
    lists = [ROOMS, ROOM_ADJECTIVES, FLOORS, DEVICES, PLACES, PEOPLE, ZONES, THINGS, TIMERS, LISTS, COLORS, MEDIA]
    return [text for texts in lists for text in texts] + [text for hint in HINTS.values() for text in hint.split("|")]
