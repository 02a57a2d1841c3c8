/*
 * One prompt from an Arduino Mega 2560 through a serial modem in transparent mode: UART 1 is the connection, pin 22
 * (DTR) high asks for it, pin 23 (DCD) high says that it is there, pin 24 (RTS) high holds it. The settings stand in
 * ../../c/shell/settings.h; lines `key=value` on the console (UART 0) change one, `go` begins, and so does a second of
 * silence. Prints as all examples do; the last line is `end STATUS WHY`.
 */
extern "C" {
#include "settings.h"
#include "show.h"
}
#include <EEPROM.h>
#include <stdio.h>

#define CONSOLE_BAUD 115200
#define MODEM_BAUD 57600
#define PIN_DTR 22
#define PIN_DCD 23
#define PIN_RTS 24
#define CONSOLE_WAIT_MS 1000u
/* What the modem may still send after RTS must fit beside what is waiting. */
#define HOLD_BYTES 64
#define CONSOLE_BYTES_MAX 400

static uint8_t in[DEVICE_IN_BYTES], out[DEVICE_OUT_BYTES];
static char console[CONSOLE_BYTES_MAX];
static struct tg_ask ask;
static struct show show;
static struct device_settings settings;
static char made[TG_ID_BYTES];
static bool opening, over;
static uint32_t since;

static int console_put(char c, FILE *)
{
    Serial.write(c);
    return 0;
}

/* Lines until `go`, or until nobody types. The texts stay in `console`. */
static bool take_console()
{
    size_t len = 0, line = 0;
    uint32_t last = millis();
    while (millis() - last < CONSOLE_WAIT_MS && len < sizeof console - 1) {
        if (Serial.available() == 0) {
            continue;
        }
        last = millis();
        console[len] = (char)Serial.read();
        if (console[len++] != '\n') {
            continue;
        }
        console[len - 1] = '\0';
        if (strcmp(console + line, "go") == 0) {
            return true;
        }
        if (!settings_take(&settings, console + line)) {
            return false;
        }
        line = len;
    }
    return len < sizeof console - 1;
}

/* Counts the starts, so that no number comes twice; noise of an open input, so that two boards differ. */
static uint32_t boot_number()
{
    uint32_t boots, noise = 0;
    EEPROM.get(0, boots);
    boots++;
    EEPROM.put(0, boots);
    for (uint8_t i = 0; i < 32; i++) {
        noise = noise * 31u + (uint32_t)analogRead(A0) + micros();
    }
    return noise ^ boots << 16;
}

static void finish()
{
    digitalWrite(PIN_DTR, LOW);
    show_end(&ask);
    over = true;
}

void setup()
{
    struct tg_buffers buffers = {in, 0, out, sizeof out};
    Serial.begin(CONSOLE_BAUD);
    Serial1.begin(MODEM_BAUD);
    stdout = fdevopen(console_put, NULL);
    pinMode(PIN_DTR, OUTPUT);
    pinMode(PIN_DCD, INPUT);
    pinMode(PIN_RTS, OUTPUT);
    settings_default(&settings);
    bool taken = take_console();
    tg_make_id(made, boot_number(), 1);
    settings.id = settings.id != NULL ? settings.id : made;
    buffers.in_cap = settings.in_bytes;
    if (!taken || !tg_ask_init(&ask, &settings.ask, settings.id, &buffers)) {
        ask.outcome = TG_USAGE;
        ask.why = "not a setting, or the prompt does not fit";
        finish();
        return;
    }
    printf("id %s\n", settings.id);
    show_init(&show, settings.ask.bare);
    tg_ask_begin(&ask, show_frame, &show, millis());
}

static void hang_up(const char *why)
{
    digitalWrite(PIN_DTR, LOW);
    opening = false;
    while (Serial1.available() > 0) {
        Serial1.read();
    }
    tg_ask_closed(&ask, why, millis());
}

static void dial()
{
    if (!opening) {
        opening = true;
        since = millis();
        digitalWrite(PIN_DTR, HIGH);
    } else if (digitalRead(PIN_DCD) == HIGH) {
        opening = false;
        tg_ask_opened(&ask, millis());
    } else if (millis() - since >= 2500u) {
        hang_up("the modem finds nobody");
    }
}

static void move_bytes()
{
    size_t len, space;
    const uint8_t *bytes = tg_ask_out(&ask, &len);
    size_t fits = (size_t)Serial1.availableForWrite();
    if (len > 0 && fits > 0) {
        tg_ask_sent(&ask, Serial1.write(bytes, len < fits ? len : fits), millis());
    }
    uint8_t *at = tg_ask_space(&ask, &space);
    for (len = 0; len < space && Serial1.available() > 0; len++) {
        at[len] = (uint8_t)Serial1.read();
    }
    digitalWrite(PIN_RTS, Serial1.available() > HOLD_BYTES ? HIGH : LOW);
    tg_ask_received(&ask, len, millis());
    if (len == 0 && digitalRead(PIN_DCD) == LOW) {
        hang_up("the connection broke");
    }
}

void loop()
{
    if (over) {
        return;
    }
    switch (ask.wants) {
    case TG_WANTS_LINK:
        dial();
        break;
    case TG_WANTS_IO:
        move_bytes();
        break;
    case TG_WANTS_SHUT:
        Serial1.flush();
        hang_up("the connection broke");
        break;
    case TG_WANTS_END:
        finish();
        return;
    default:
        break;
    }
    tg_ask_tick(&ask, millis());
}
