//! What an answer costs: electricity, the hardware's share, the cloud's price, bytes; and the figures of the paper that
//! founded this (Jang and Morabito 2025): CPR, the cost of a response; U = αQ + (1 − α)R with accuracy Q and normalised
//! responsiveness R; PCR = U / CPR. Money is in cents. Invariant: prices are finite and not negative.

/// Hours of a year.
const HOURS_PER_YEAR: f64 = 8_766.0;
/// Joule per kilowatt-hour.
const JOULE_PER_KWH: f64 = 3.6e6;

/// What things cost here. All of it is modelled: a gateway does not see its invoices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// Cents per kilowatt-hour.
    pub kwh_cents: f64,
    /// Power of the gateway while it computes, above idle, in watts.
    pub gateway_watts: f64,
    /// Price of the gateway, in cents.
    pub gateway_cents: f64,
    /// Years over which it is written off.
    pub gateway_years: f64,
    /// Cents per million tokens read by the cloud.
    pub cloud_read_cents: f64,
    /// Cents per million tokens written by the cloud.
    pub cloud_write_cents: f64,
    /// Cents per megabyte on the link.
    pub megabyte_cents: f64,
    /// Joule per kilobyte on the gateway's modem.
    pub kilobyte_joule: f64,
}

impl Default for Prices {
    /// Electricity at 25 cents (the paper's); a board of 250 dollars over three years that draws 6 W more when it
    /// computes; a small hosted model at 15 and 60 cents per million tokens; a metered link at 0.1 cent per megabyte;
    /// a mobile modem at 0.02 J per kilobyte.
    fn default() -> Self {
        Self {
            kwh_cents: 25.0,
            gateway_watts: 6.0,
            gateway_cents: 25_000.0,
            gateway_years: 3.0,
            cloud_read_cents: 15.0,
            cloud_write_cents: 60.0,
            megabyte_cents: 0.1,
            kilobyte_joule: 0.02,
        }
    }
}

/// What something took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bill {
    /// Energy at the gateway, in joule.
    pub joule: f64,
    /// Electricity, in cents.
    pub electricity: f64,
    /// Share of the hardware, in cents.
    pub hardware: f64,
    /// The cloud's price, in cents.
    pub cloud: f64,
    /// The link's price, in cents.
    pub link: f64,
}

impl Bill {
    /// All of it, in cents: the paper's CPR with what it left out.
    #[must_use]
    pub fn cents(&self) -> f64 {
        self.electricity + self.hardware + self.cloud + self.link
    }

    /// Both bills together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            joule: self.joule + other.joule,
            electricity: self.electricity + other.electricity,
            hardware: self.hardware + other.hardware,
            cloud: self.cloud + other.cloud,
            link: self.link + other.link,
        }
    }
}

/// What a hop to the cloud moves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Hop {
    /// Bytes sent and received, framing included.
    pub bytes: u64,
    /// Tokens that the cloud reads.
    pub read: u64,
    /// Tokens that it writes.
    pub written: u64,
}

impl Prices {
    /// Which price is no price, if any.
    #[must_use]
    pub fn mistake(&self) -> Option<&'static str> {
        let all = [
            ("kwh_cents", self.kwh_cents),
            ("gateway_watts", self.gateway_watts),
            ("gateway_cents", self.gateway_cents),
            ("cloud_read_cents", self.cloud_read_cents),
            ("cloud_write_cents", self.cloud_write_cents),
            ("megabyte_cents", self.megabyte_cents),
            ("kilobyte_joule", self.kilobyte_joule),
        ];
        let bad = all.iter().find(|(_, value)| !value.is_finite() || *value < 0.0).map(|(name, _)| *name);
        let years = self.gateway_years.is_finite() && self.gateway_years > 0.0;
        bad.or((!years).then_some("gateway_years"))
    }

    /// An answer that kept the gateway busy for so long, in milliseconds. The hardware's share counts busy time only:
    /// an idle gateway is there for other reasons.
    #[must_use]
    pub fn local(&self, busy_ms: f64) -> Bill {
        let joule = self.gateway_watts * busy_ms / 1_000.0;
        let hours = busy_ms / 3.6e6;
        Bill {
            joule,
            electricity: joule / JOULE_PER_KWH * self.kwh_cents,
            hardware: self.gateway_cents / (self.gateway_years * HOURS_PER_YEAR) * hours,
            ..Bill::default()
        }
    }

    /// A hop to the cloud.
    #[must_use]
    pub fn hop(&self, hop: Hop) -> Bill {
        let joule = self.kilobyte_joule * hop.bytes as f64 / 1_024.0;
        Bill {
            joule,
            electricity: joule / JOULE_PER_KWH * self.kwh_cents,
            hardware: 0.0,
            cloud: (self.cloud_read_cents * hop.read as f64 + self.cloud_write_cents * hop.written as f64) / 1e6,
            link: self.megabyte_cents * hop.bytes as f64 / 1e6,
        }
    }
}

/// The paper's U: accuracy and responsiveness, each 0 to 1, weighed by α.
#[must_use]
pub fn utility(accuracy: f64, responsiveness: f64, alpha: f64) -> f64 {
    alpha * accuracy + (1.0 - alpha) * responsiveness
}

/// The paper's PCR: utility per cent. None where a response costs nothing: the ratio is unbounded, which is why it never
/// stands alone in a report.
#[must_use]
pub fn performance_cost_ratio(utility: f64, cents: f64) -> Option<f64> {
    (cents > 0.0).then(|| utility / cents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_table_comes_out() {
        // (CPR, Q, R, PCR) of the rows that are consistent in themselves.
        for (cents, q, r, expect) in
            [(1.65, 0.97, 0.71, 0.51), (0.0041, 0.91, 0.28, 145.12), (0.0017, 0.80, 0.33, 332.35)]
        {
            let got = performance_cost_ratio(utility(q, r, 0.5), cents).unwrap_or(f64::NAN);
            assert!((got - expect).abs() / expect < 0.005, "{got}, the paper has {expect}");
        }
        assert_eq!(performance_cost_ratio(1.0, 0.0), None);
    }

    #[test]
    fn energy_and_hardware_grow_with_busy_time() {
        let prices = Prices { gateway_watts: 10.0, ..Prices::default() };
        let hour = prices.local(3.6e6);
        assert!((hour.joule - 36_000.0).abs() < 1e-6);
        assert!((hour.electricity - 0.25).abs() < 1e-9);
        // The research's figure: about 0.95 cents per hour for such a board.
        assert!((hour.hardware - 0.95).abs() < 0.01, "{}", hour.hardware);
        assert_eq!(prices.local(0.0).cents(), 0.0);
    }

    #[test]
    fn a_hop_costs_tokens_and_bytes() {
        let bill = Prices::default().hop(Hop { bytes: 2_000_000, read: 1_000_000, written: 500_000 });
        assert!((bill.cloud - 45.0).abs() < 1e-9 && (bill.link - 0.2).abs() < 1e-9, "{bill:?}");
        assert_eq!(bill.and(&Bill::default()), bill);
    }

    #[test]
    fn prices_that_are_none_are_named() {
        assert_eq!(Prices::default().mistake(), None);
        assert_eq!(Prices { kwh_cents: f64::NAN, ..Prices::default() }.mistake(), Some("kwh_cents"));
        assert_eq!(Prices { megabyte_cents: -1.0, ..Prices::default() }.mistake(), Some("megabyte_cents"));
        assert_eq!(Prices { gateway_years: 0.0, ..Prices::default() }.mistake(), Some("gateway_years"));
    }
}
