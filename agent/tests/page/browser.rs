//! The page as a person has it: a prompt, its answer, a link that is cut, a dead letter.

use crate::support::{Central, Proxy, Setup, slow_model};
use crate::webdriver::Browser;
use crate::{SPELL, poison};

/// Where the picture of the page goes, if somebody wants it: PNG, for the README.
const PICTURE: &str = "TIDEGATE_PAGE_PNG";

#[test]
fn a_person_asks_sees_the_link_fall_and_tries_a_dead_letter_again() {
    let central = Central::start();
    let proxy = Proxy::to(central.port);
    let mut setup = Setup::new();
    setup.model = slow_model(setup.folder.path());
    let spell = SPELL.replace("system", "cloud = \"never\"\nsystem");
    setup.more = format!("{spell}[bridge]\nurl = \"mqtt://127.0.0.1:{}\"\n", proxy.port);
    let gateway = setup.start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut device = gateway.device("local-1");
    poison(&gateway, &mut device, "p-1");

    let browser = Browser::start();
    let url = format!("http://127.0.0.1:{}/", gateway.page());
    browser.open(&url);
    browser.until_text("#link-state", |text| text == "link up");
    browser.until_text("#name", |text| text == "site/gateway");

    browser.keys("#ask-input", "what is the tide?");
    browser.click("#ask-send");
    browser.until_text("#ask-answer", |text| !text.is_empty());
    let told = browser.until_text("#ask-status", |text| text.starts_with("Answered"));
    assert!(told.contains("route local"), "{told}");
    let answer = browser.text("#ask-answer");
    assert!(answer.trim_matches('"').chars().all(|c| "ab".contains(c)) && answer.len() >= 60, "{answer}");
    assert!(browser.text("#ask-facts").contains("Confidence"));

    proxy.cut();
    browser.until_text("#link-state", |text| text == "link down");
    browser.until_text("#events", |text| text.contains("the link is down"));
    proxy.mend();
    browser.until_text("#link-state", |text| text == "link up");

    let letter = browser.until_text("#dead", |text| text.contains("local-1"));
    assert!(letter.contains("crashed the engine") && !letter.contains("riddle"), "{letter}");
    picture(&browser);
    browser.click("#dead button");
    browser.until_text("#dead-status", |text| text.contains("tried again"));
    device.answer("p-1-r1");
    browser.until_text("#dead", |text| text == "none");
    named(&browser);
    foreign(&browser, gateway.page());
}

/// For a reader everything has a name, and what changes is told.
fn named(browser: &Browser) {
    let nameless = browser.look(
        "return [...document.querySelectorAll('button, input, select, textarea')].filter(e => \
         !(e.labels && e.labels.length) && !e.getAttribute('aria-label') && !e.innerText).map(e => e.outerHTML)",
    );
    assert_eq!(nameless.as_array().map(Vec::len), Some(0), "{nameless}");
    let live = browser.look("return document.querySelectorAll('[aria-live], [role=alert]').length");
    assert!(live.as_u64() >= Some(4), "{live}");
    browser.look("document.querySelector('#ask-status').textContent = ''");
    browser.keys("#ask-input", "once more\u{e009}\u{e007}");
    browser.until_text("#ask-status", |text| text.starts_with("Answered"));
}

/// A page of somebody else, in the same browser, gets nothing and does nothing.
fn foreign(browser: &Browser, port: u16) {
    browser.open(&format!("http://localhost:{port}/icon.svg"));
    browser.open("data:text/html,<title>elsewhere</title>");
    for (path, options) in [
        ("/api/state", "{}"),
        (
            "/api/retry",
            "{method: 'POST', headers: {'tidegate-act': '1', 'content-type': 'application/json'}, body: '{\"number\":1}'}",
        ),
        ("/api/ask", "{method: 'POST', headers: {'content-type': 'text/plain'}, body: '{\"input\":\"x\"}'}"),
    ] {
        let script = format!(
            "return fetch('http://127.0.0.1:{port}{path}', {options}).then(r => 'read ' + r.status, () => 'turned away')"
        );
        assert_eq!(browser.look(&script), "turned away", "{path}");
    }
    // The name that an attacker points here: the browser sends it as Host.
    browser.open(&format!("http://evil.example:{port}/"));
    let body = browser.text("body");
    assert!(body.contains("page.hosts") && !body.contains("Dead letters"), "{body}");
}

/// Writes the picture where somebody wants it, and sees that there is one.
fn picture(browser: &Browser) {
    let base64 = browser.screenshot();
    let png = unbase64(&base64);
    assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000, "{} bytes", png.len());
    if let Some(path) = std::env::var_os(PICTURE) {
        std::fs::write(path, png).unwrap();
    }
}

fn unbase64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for value in text.bytes().filter_map(|b| DIGITS.iter().position(|d| *d == b)) {
        held = held << 6 | u32::try_from(value).unwrap();
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).unwrap());
        }
    }
    bytes
}
