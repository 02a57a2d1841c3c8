//! The page's own files, in the binary: no disk, no other host. Held by a test: under 100 KB, nothing from elsewhere.

/// A file.
pub(super) struct Asset {
    pub(super) path: &'static str,
    pub(super) kind: &'static str,
    pub(super) text: &'static str,
}

/// All of them.
pub(super) const ASSETS: [Asset; 4] = [
    Asset { path: "/", kind: "text/html; charset=utf-8", text: include_str!("assets/page.html") },
    Asset { path: "/page.css", kind: "text/css; charset=utf-8", text: include_str!("assets/page.css") },
    Asset { path: "/page.js", kind: "text/javascript; charset=utf-8", text: include_str!("assets/page.js") },
    Asset { path: "/icon.svg", kind: "image/svg+xml", text: include_str!("assets/icon.svg") },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of all files.
    const BYTES_MAX: usize = 100_000;

    #[test]
    fn they_are_small_and_need_nobody_else() {
        let bytes: usize = ASSETS.iter().map(|asset| asset.text.len()).sum();
        assert!(bytes < BYTES_MAX, "{bytes} bytes");
        for asset in ASSETS {
            let text = asset.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{} names another host", asset.path);
            for unsafe_way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(unsafe_way), "{} uses {unsafe_way}: text is only text", asset.path);
            }
        }
    }

    #[test]
    fn nothing_is_inline() {
        let page = ASSETS[0].text;
        for inline in [" style=", "<style", " onclick", " onload", " onerror", " onsubmit", "javascript:"] {
            assert!(!page.contains(inline), "{inline} in the page");
        }
        assert_eq!(page.matches("<script").count(), page.matches("<script src=").count());
    }
}
