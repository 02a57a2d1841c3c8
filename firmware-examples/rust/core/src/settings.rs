//! What a device can be told. The defaults are a board's settings; `key=value` changes one.

/// Settings of a device.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// The gateway's address.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// SITE/GATEWAY.
    pub gateway: &'a str,
    /// The device's name, and its client id.
    pub device: &'a str,
    /// Else anonymous.
    pub user: Option<&'a str>,
    /// Its password.
    pub password: Option<&'a str>,
    /// Topic of the last will, not below `tg/`.
    pub will: Option<&'a str>,
    /// The question.
    pub text: &'a str,
    /// Else the gateway's default task.
    pub task: Option<&'a str>,
    /// Else of boot number and counter.
    pub id: Option<&'a str>,
    /// For everything; the gateway is told too.
    pub deadline_ms: u32,
    /// Longest wait beyond the deadline: the gateway decides when it comes, and its word needs a moment to arrive.
    pub grace_ms: u32,
    /// Else the task's.
    pub max_tokens: u32,
    /// Something is sent at least this often.
    pub keep_alive_s: u16,
    /// Connections, and repetitions after `busy`.
    pub attempts_max: u8,
    /// Largest packet that is taken, in bytes.
    pub packet_bytes_max: u32,
    /// `token` frames are wanted.
    pub stream: bool,
    /// Never leaves the gateway.
    pub local: bool,
    /// Plain text both ways: no id, so a repetition is a new prompt.
    pub bare: bool,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Self {
            host: "192.0.2.10",
            port: 1883,
            gateway: "site/gateway",
            device: "press-7",
            user: None,
            password: None,
            will: None,
            text: "turn off the lights in the packing hall",
            task: None,
            id: None,
            deadline_ms: 30_000,
            grace_ms: 2_000,
            max_tokens: 0,
            keep_alive_s: 30,
            attempts_max: 5,
            packet_bytes_max: 4096,
            stream: false,
            local: false,
            bare: false,
        }
    }
}

/// Why a setting was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingsError {
    /// There is no such key.
    Unknown,
    /// The value is none for this key.
    Value,
}

impl<'a> Settings<'a> {
    /// Takes one `key=value`.
    ///
    /// # Errors
    /// No such key, or a value that is none; nothing is changed then.
    pub fn take(&mut self, pair: &'a str) -> Result<(), SettingsError> {
        let (key, value) = pair.split_once('=').ok_or(SettingsError::Unknown)?;
        match key {
            "host" => self.host = value,
            "gateway" => self.gateway = value,
            "device" => self.device = value,
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "will" => self.will = Some(value),
            "text" => self.text = value,
            "task" => self.task = Some(value),
            "id" => self.id = Some(value),
            _ => return self.take_number(key, value),
        }
        Ok(())
    }

    fn take_number(&mut self, key: &str, value: &str) -> Result<(), SettingsError> {
        let number: u32 = value.parse().map_err(|_| SettingsError::Value)?;
        let small = u16::try_from(number).map_err(|_| SettingsError::Value);
        match key {
            "port" => self.port = small?,
            "deadline_ms" => self.deadline_ms = number,
            "grace_ms" => self.grace_ms = number,
            "max_tokens" => self.max_tokens = number,
            "keep_alive_s" if number > 0 => self.keep_alive_s = small?,
            "attempts" => self.attempts_max = u8::try_from(number).map_err(|_| SettingsError::Value)?.max(1),
            "buffer" if number <= 4096 => self.packet_bytes_max = number,
            "stream" => self.stream = number != 0,
            "local" => self.local = number != 0,
            "bare" => self.bare = number != 0,
            _ => return Err(SettingsError::Unknown),
        }
        Ok(())
    }
}
