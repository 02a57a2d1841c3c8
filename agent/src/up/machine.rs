//! What the machine's sensors say, as Linux shows them: thermal zones, power supplies, and the Raspberry Pi's own word on
//! throttling. A machine without them says nothing. Reads a handful of files of the kernel, microseconds each.

use std::fs;
use std::path::{Path, PathBuf};
use tidegate_core::strain::{Condition, Power, Throttle};

/// Temperatures beyond these are broken sensors, in degrees Celsius.
const SOUND_C: std::ops::RangeInclusive<f64> = -60.0..=150.0;
/// Entries of a folder that are looked at, at most: no machine has more sensors.
const SENSORS_MAX: usize = 64;
/// What the Raspberry Pi says now: under-voltage, frequency capped, throttled, soft temperature limit. Higher bits say
/// what happened since the start.
const PI_NOW: u32 = 0b1111;

/// Reads everything below this root, `/sys` but for tests.
pub(super) fn read(root: &Path) -> Condition {
    Condition { celsius: hottest(root), power: power(root), throttle: throttle(root) }
}

fn hottest(root: &Path) -> Option<f64> {
    let zones = entries(&root.join("class/thermal"), "thermal_zone");
    let celsius = zones.iter().filter_map(|zone| number(&zone.join("temp"))).map(|milli| milli / 1_000.0);
    celsius.filter(|celsius| SOUND_C.contains(celsius)).reduce(f64::max)
}

/// A battery counts while it is drawn on; the emptiest of several.
fn power(root: &Path) -> Power {
    let supplies = entries(&root.join("class/power_supply"), "");
    let drawn = |supply: &&PathBuf| {
        word(&supply.join("type")).as_deref() == Some("Battery")
            && word(&supply.join("scope")).as_deref() != Some("Device")
            && word(&supply.join("status")).as_deref() == Some("Discharging")
    };
    let charges = supplies.iter().filter(drawn).filter_map(|supply| number(&supply.join("capacity")));
    let charges = charges.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| percent / 100.0);
    charges.reduce(f64::min).map_or(Power::Mains, Power::Battery)
}

fn throttle(root: &Path) -> Throttle {
    let said = word(&root.join("devices/platform/soc/soc:firmware/get_throttled"));
    let bits = said.and_then(|hex| u32::from_str_radix(hex.trim_start_matches("0x"), 16).ok());
    if bits.is_some_and(|bits| bits & PI_NOW != 0) { Throttle::Throttled } else { Throttle::Free }
}

fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else { return Vec::new() };
    let named = found.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.take(SENSORS_MAX).map(|entry| entry.path()).collect()
}

fn word(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

fn number(file: &Path) -> Option<f64> {
    word(file)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_hottest_sound_sensor_counts() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()), Condition::default());
        put(root.path(), "class/thermal/thermal_zone0/temp", "61250\n");
        put(root.path(), "class/thermal/thermal_zone1/temp", "83000\n");
        put(root.path(), "class/thermal/thermal_zone2/temp", "-274000\n");
        put(root.path(), "class/thermal/thermal_zone3/temp", "broken\n");
        put(root.path(), "class/thermal/cooling_device0/temp", "99000\n");
        assert_eq!(read(root.path()).celsius, Some(83.0));
    }

    #[test]
    fn a_battery_counts_while_it_is_drawn_on() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "class/power_supply/AC/type", "Mains\n");
        put(root.path(), "class/power_supply/BAT0/type", "Battery\n");
        put(root.path(), "class/power_supply/BAT0/status", "Charging\n");
        put(root.path(), "class/power_supply/BAT0/capacity", "15\n");
        assert_eq!(read(root.path()).power, Power::Mains);
        put(root.path(), "class/power_supply/BAT0/status", "Discharging\n");
        assert_eq!(read(root.path()).power, Power::Battery(0.15));
        put(root.path(), "class/power_supply/mouse/type", "Battery\n");
        put(root.path(), "class/power_supply/mouse/scope", "Device\n");
        put(root.path(), "class/power_supply/mouse/status", "Discharging\n");
        put(root.path(), "class/power_supply/mouse/capacity", "3\n");
        assert_eq!(read(root.path()).power, Power::Battery(0.15));
    }

    #[test]
    fn the_boards_word_on_throttling_counts_for_now_only() {
        let root = tempfile::tempdir().unwrap();
        let file = "devices/platform/soc/soc:firmware/get_throttled";
        put(root.path(), file, "50000\n");
        assert_eq!(read(root.path()).throttle, Throttle::Free);
        put(root.path(), file, "0x50004\n");
        assert_eq!(read(root.path()).throttle, Throttle::Throttled);
    }
}
