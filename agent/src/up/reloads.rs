//! Files that the door reads again while it runs: a new one that cannot be used is announced, and so is that it can.
//! The old one stays in use meanwhile, which the door sees to.

use super::hub::Hub;

/// What is wrong with files that were read again, as it was announced.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    told: Vec<String>,
}

impl Reloads {
    /// Takes what is wrong now: what is to be announced.
    fn take(&mut self, faults: Vec<String>) -> Vec<String> {
        let new = faults.iter().filter(|fault| !self.told.contains(fault)).cloned();
        let over = self.told.iter().filter(|fault| !faults.contains(fault)).map(|fault| format!("no more: {fault}"));
        let said = new.chain(over).collect();
        self.told = faults;
        said
    }
}

impl Hub {
    /// Announces what became of files that were read again since the last time. The log has it from the door.
    pub(super) fn tell_reloads(&mut self) {
        for message in self.view.reloads.take(self.hands.front.faults()) {
            self.announce("reload", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reloads;
    use std::slice::from_ref;

    #[test]
    fn a_fault_is_announced_once_and_so_is_its_end() {
        let mut reloads = Reloads::default();
        let (users, rights) = ("users: line 1".to_owned(), "rights: rule 2".to_owned());
        assert_eq!(reloads.take(vec![users.clone()]), from_ref(&users));
        assert!(reloads.take(vec![users.clone()]).is_empty());
        assert_eq!(reloads.take(vec![users, rights.clone()]), from_ref(&rights));
        assert_eq!(reloads.take(vec![rights]), ["no more: users: line 1"]);
        assert_eq!(reloads.take(Vec::new()), ["no more: rights: rule 2"]);
    }
}
