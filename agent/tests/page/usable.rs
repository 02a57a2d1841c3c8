//! Whether people can use the page: in the light and in the dark, on a phone, with a keyboard, with a reader.

use crate::support::{Setup, free_port, until};
use crate::webdriver::Browser;
use serde_json::{Value, json};

/// Least contrast of text against what is behind it: WCAG 2.2, success criterion 1.4.3, level AA.
const CONTRAST_MIN: f64 = 4.5;
/// Least contrast of the edges of controls and of the focus: WCAG 2.2, success criteria 1.4.11 and 2.4.7.
const EDGE_MIN: f64 = 3.0;
/// Widths of phones in CSS pixels: the narrowest that are sold, and WCAG's own of success criterion 1.4.10.
const PHONES: [u32; 3] = [320, 360, 412];
const TAB: char = '\u{e004}';

/// Relative luminance and contrast as WCAG 2.2 defines them, of every text that is seen; those under a bound.
const CONTRAST: &str = r"
const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return { rgb: m.slice(0, 3), a: m.length > 3 ? m[3] : 1 }; };
const light = (rgb) => { const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)]; return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05); };
const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.a > 0) return c.rgb; } return [255, 255, 255]; };
const seen = [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.disabled && getComputedStyle(e).opacity === '1');
const texts = seen.filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
const found = texts.map((e) => ({ what: e.tagName + ' ' + e.textContent.trim().slice(0, 40), ratio: ratio(parse(getComputedStyle(e).color).rgb, behind(e)) }));
const edges = [...document.querySelectorAll('textarea, select, input')].filter((e) => e.checkVisibility()).map((e) => ({ what: e.id, ratio: ratio(parse(getComputedStyle(e).borderTopColor).rgb, behind(e.parentElement)) }));
return { back: behind(document.body), count: found.length, low: found.filter((f) => f.ratio < arguments[0]), edges: edges.filter((f) => f.ratio < arguments[1]) };
";

fn prefers(browser: &Browser, scheme: &str) -> Value {
    // Without motion a colour is at once what it will be.
    let still = json!({ "name": "prefers-reduced-motion", "value": "reduce" });
    let features = json!([{ "name": "prefers-color-scheme", "value": scheme }, still]);
    browser.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    let script =
        CONTRAST.replace("arguments[0]", &CONTRAST_MIN.to_string()).replace("arguments[1]", &EDGE_MIN.to_string());
    let found = browser.look(&script);
    assert!(found["count"].as_u64() > Some(40), "so much text is on the page: {found}");
    assert_eq!((&found["low"], &found["edges"]), (&json!([]), &json!([])), "{scheme}: too little contrast");
    found["back"].clone()
}

/// The page of a gateway that has answered something.
fn shown(browser: &Browser, port: u16) {
    browser.open(&format!("http://127.0.0.1:{port}/"));
    browser.until_text("#name", |text| text == "site/gateway");
    browser.keys("#ask-input", "turn off the lights in the packing hall");
    browser.click("#ask-send");
    browser.until_text("#ask-status", |text| text.starts_with("Answered"));
}

#[test]
fn the_page_can_be_read_in_the_light_and_in_the_dark() {
    let gateway = Setup::new().start();
    gateway.until_ready();
    let browser = Browser::start();
    shown(&browser, gateway.page());
    let brightness = |rgb: &Value| rgb.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).sum::<f64>() / 3.0;
    let (day, night) = (prefers(&browser, "light"), prefers(&browser, "dark"));
    assert!(brightness(&day) > 200.0 && brightness(&night) < 60.0, "{day} {night}");
}

#[test]
fn on_a_phone_nothing_is_wider_than_the_screen_and_fingers_hit_what_they_mean() {
    let gateway = Setup::new().start();
    gateway.until_ready();
    let browser = Browser::start();
    for width in PHONES {
        let screen = json!({ "width": width, "height": 740, "deviceScaleFactor": 2, "mobile": true });
        browser.devtools("Emulation.setDeviceMetricsOverride", &screen);
        shown(&browser, gateway.page());
        until("a page that fits", || {
            let wide = browser.look("return [document.documentElement.scrollWidth, innerWidth, document.querySelector('main').getBoundingClientRect().right]");
            let [all, seen, right] = [0, 1, 2].map(|at| wide[at].as_f64().unwrap());
            assert!((seen - f64::from(width)).abs() < 1.0, "the page asks for the width of the screen: {wide}");
            (all <= seen && right <= seen).then_some(())
        });
        // WCAG 2.2, success criterion 2.5.8: 24 by 24 pixels at least.
        let small = browser.look(
            "return [...document.querySelectorAll('button, select, textarea, label.check')].filter(e => e.checkVisibility()) \
             .filter(e => { const r = e.getBoundingClientRect(); return r.width < 24 || r.height < 24; }).map(e => e.outerHTML)",
        );
        assert_eq!(small, json!([]), "{width}");
    }
}

#[test]
fn a_keyboard_reaches_everything_in_the_order_of_the_page_and_shows_where_it_is() {
    let gateway = Setup::new().start();
    gateway.until_ready();
    let browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{}/", gateway.page()));
    browser.until_text("#name", |text| text == "site/gateway");
    let wanted = browser.look(
        "const all = [...document.querySelectorAll('a[href], button, input, select, textarea, [tabindex=\"0\"]')]; \
         return all.filter(e => e.checkVisibility() && !e.disabled).map(e => e.id || e.className || e.tagName)",
    );
    let wanted: Vec<&str> = wanted.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(wanted[..5], ["skip", "ask-input", "ask-task", "ask-local", "ask-send"], "{wanted:?}");
    for expect in &wanted {
        browser.press(TAB);
        let here = browser.look(
            "const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect(); \
             return [e.id || e.className || e.tagName, s.outlineStyle, parseFloat(s.outlineWidth), r.left, r.width]",
        );
        assert_eq!(here[0], *expect, "{wanted:?}");
        assert!(here[1] == "solid" && here[2].as_f64() >= Some(2.0), "the focus is seen: {here}");
        assert!(here[3].as_f64() >= Some(0.0) && here[4].as_f64() > Some(0.0), "and not off the screen: {here}");
    }
    // With the keyboard alone: past everything before the prompt, ask, and hear the answer.
    browser.look("document.activeElement.blur(); document.querySelector('.skip').focus()");
    browser.press('\u{e007}');
    let at = browser.look("return location.hash");
    assert_eq!(at, "#ask-input");
    browser.keys("#ask-input", "turn on the light");
    (0..3).for_each(|_| browser.press(TAB));
    browser.press('\u{e00d}');
    browser.until_text("#ask-status", |text| text.starts_with("Answered"));
}

#[test]
fn a_token_that_is_wrong_is_said_and_the_right_one_opens_the_page() {
    let mut setup = Setup::new();
    std::fs::write(setup.folder.path().join("token"), "a-token-of-this-gateway\n").unwrap();
    setup.page = format!("listen = [\"127.0.0.1:{}\"]\ntoken_file = \"token\"\n", free_port());
    let gateway = setup.start();
    let browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{}/", gateway.page()));
    browser.until_text("#token-status", |text| text == "The gateway wants its token.");
    browser.keys("#token", "a-wrong-token-of-somebody\u{e007}");
    browser.until_text("#token-status", |text| text == "This token is wrong.");
    assert_eq!(browser.text("#name"), "", "nothing is shown without it");
    browser.keys("#token", "a-token-of-this-gateway\u{e007}");
    browser.until_text("#name", |text| text == "site/gateway");
    let told = browser.until_text("#turned", |text| text.contains("wrong token"));
    assert!(told.starts_with(|c: char| c.is_ascii_digit()), "{told}");
}
