//! `tidegate ask --device D --id ID`: asks the control socket where a prompt is, or what became of it.

use crate::cli::AskArgs;
use crate::failure::Failure;
use crate::status::{ask_one, at, word};
use crate::terminal::print;
use serde_json::{Value, json};
use std::fmt::Write as _;
use tidegate_schemas::{DeviceId, PromptId};

/// Runs the command: ends well only if the prompt was answered.
pub(crate) fn run(args: &AskArgs) -> Result<(), Failure> {
    let device = args.device.as_ref().ok_or_else(|| Failure::other("--id without a text needs --device, too"))?;
    let device: DeviceId = device.parse().map_err(Failure::other)?;
    let id: PromptId = args.id.clone().unwrap_or_default().parse().map_err(Failure::other)?;
    let request = json!({ "op": "fetch", "device": device, "id": id, "reveal": args.reveal });
    let found = ask_one(args.control.as_deref(), &request.to_string())?;
    if let Some(error) = found.get("error") {
        return Err(Failure::other(word(error)));
    }
    print(&if args.json { format!("{found}\n") } else { human(&found) })?;
    match word(at(&found, "/state")).as_str() {
        "answered" => Ok(()),
        state => Err(Failure::other(format!("there is no answer: the prompt is {state}"))),
    }
}

/// What a person reads; what is not known is left out.
fn human(found: &Value) -> String {
    let mut text = String::new();
    for (key, path, unit) in [
        ("prompt", "/prompt", ""),
        ("text", "/text", ""),
        ("json", "/json", ""),
        ("message", "/message", ""),
        ("state", "/state", ""),
        ("task", "/task", ""),
        ("code", "/code", ""),
        ("route", "/route", ""),
        ("reason", "/reason", ""),
        ("confidence", "/confidence", ""),
        ("model", "/model", ""),
        ("runs", "/runs", ""),
        ("tokens", "/usage/completion_tokens", ""),
        ("waiting", "/timing/queued_ms", " ms"),
        ("reading", "/timing/prefill_ms", " ms"),
        ("writing", "/timing/decode_ms", " ms"),
        ("total", "/timing/total_ms", " ms"),
        ("age", "/age_ms", " ms"),
        ("deadline in", "/deadline_left_ms", " ms"),
        ("delivered", "/delivered", ""),
    ] {
        let value = at(found, path);
        if !value.is_null() {
            let _ = writeln!(text, "{key:<12}{}{unit}", word(value));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_what_is_known_and_nothing_else() {
        let text = human(&json!({"state":"answered","route":"local","timing":{"total_ms":12},"code":null}));
        assert_eq!(text, "state       answered\nroute       local\ntotal       12 ms\n");
    }
}
