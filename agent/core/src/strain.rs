//! Whether the machine should be spared: too hot, throttled by its own protection, or low on battery. The shell reads
//! the sensors; here is what follows from them. Invariants: a reading that is missing or no number strains nothing; a
//! strain that began ends only when the reading is better than where it began, so that it does not flicker.

/// Temperature from which work goes elsewhere where it may, in degrees Celsius: boards throttle from 80 to 85.
const HOT_C: f64 = 80.0;
/// Temperature under which it is over.
const COOL_C: f64 = 74.0;
/// Charge under which the battery is spared, as a share.
const LOW_CHARGE: f64 = 0.20;
/// Charge over which it is no longer.
const GOOD_CHARGE: f64 = 0.30;

/// What runs the machine.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Power {
    /// The mains, or nothing is known.
    #[default]
    Mains,
    /// A battery that is being drawn on, and its charge, 0 to 1.
    Battery(f64),
}

/// Whether the hardware slows itself down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Throttle {
    /// No, or it does not say.
    #[default]
    Free,
    /// Yes, now.
    Throttled,
}

/// What the sensors say.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Condition {
    /// The hottest sensor, in degrees Celsius; none where there is none.
    pub celsius: Option<f64>,
    /// What runs the machine.
    pub power: Power,
    /// Whether it slows itself down.
    pub throttle: Throttle,
}

/// Why the machine is spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strain {
    /// It is too hot.
    Heat,
    /// It slows itself down.
    Throttled,
    /// Its battery is low.
    Battery,
}

impl Strain {
    /// In a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Heat => "heat",
            Self::Throttled => "throttled",
            Self::Battery => "battery",
        }
    }

    /// What strains the machine now, given what did until now.
    #[must_use]
    pub fn of(condition: Condition, before: Option<Self>) -> Option<Self> {
        if condition.throttle == Throttle::Throttled {
            return Some(Self::Throttled);
        }
        let hot = if before == Some(Self::Heat) { COOL_C } else { HOT_C };
        if condition.celsius.is_some_and(|celsius| celsius >= hot) {
            return Some(Self::Heat);
        }
        let low = if before == Some(Self::Battery) { GOOD_CHARGE } else { LOW_CHARGE };
        match condition.power {
            Power::Battery(charge) if charge < low => Some(Self::Battery),
            Power::Battery(_) | Power::Mains => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot(celsius: f64) -> Condition {
        Condition { celsius: Some(celsius), ..Condition::default() }
    }

    #[test]
    fn each_sensor_strains_and_the_protection_comes_first() {
        let throttled = Condition { throttle: Throttle::Throttled, ..hot(90.0) };
        let low = Condition { power: Power::Battery(0.1), ..hot(50.0) };
        assert_eq!(Strain::of(Condition::default(), None), None);
        assert_eq!(Strain::of(hot(81.0), None), Some(Strain::Heat));
        assert_eq!(Strain::of(throttled, None), Some(Strain::Throttled));
        assert_eq!(Strain::of(low, None), Some(Strain::Battery));
    }

    #[test]
    fn a_strain_ends_only_when_it_is_clearly_over() {
        assert_eq!(Strain::of(hot(77.0), None), None);
        assert_eq!(Strain::of(hot(77.0), Some(Strain::Heat)), Some(Strain::Heat));
        assert_eq!(Strain::of(hot(73.0), Some(Strain::Heat)), None);
        let charge = |charge: f64| Condition { power: Power::Battery(charge), ..Condition::default() };
        assert_eq!(Strain::of(charge(0.25), None), None);
        assert_eq!(Strain::of(charge(0.25), Some(Strain::Battery)), Some(Strain::Battery));
        assert_eq!(Strain::of(charge(0.31), Some(Strain::Battery)), None);
    }

    #[test]
    fn what_is_no_number_strains_nothing() {
        assert_eq!(Strain::of(hot(f64::NAN), None), None);
        let unknown = Condition { power: Power::Battery(f64::NAN), ..Condition::default() };
        assert_eq!(Strain::of(unknown, None), None);
    }
}
