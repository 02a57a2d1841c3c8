//! Files that are whole, cut, changed, foreign, or too large.
#![allow(clippy::unwrap_used)]

use super::*;
use std::os::unix::fs::PermissionsExt;

const SETTINGS: Settings<'static> =
    Settings { model: "00ff", cache: CacheType::F16, context_tokens: 512, attention: "auto" };

fn tokens(n: i32) -> Vec<LlamaToken> {
    (0..n).map(LlamaToken).collect()
}

fn only_file(dir: &Path) -> PathBuf {
    let mut files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert!(files.next().is_none());
    file
}

#[test]
fn what_was_put_there_is_found_and_nobody_else_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::new(dir.path(), SETTINGS, 1_000);
    assert!(shelf.load(&tokens(3), 1_000).unwrap().is_none());
    shelf.save(&tokens(3), b"state").unwrap();
    assert_eq!(shelf.load(&tokens(3), 1_000).unwrap().unwrap(), b"state");
    assert!(shelf.load(&tokens(4), 1_000).unwrap().is_none());
    let mode = std::fs::metadata(only_file(dir.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn another_model_setting_or_engine_has_other_files() {
    let dir = tempfile::tempdir().unwrap();
    Shelf::new(dir.path(), SETTINGS, 1_000).save(&tokens(3), b"state").unwrap();
    let mine = only_file(dir.path());
    for other in [
        Settings { model: "00fe", ..SETTINGS },
        Settings { cache: CacheType::Q8_0, ..SETTINGS },
        Settings { context_tokens: 513, ..SETTINGS },
        Settings { attention: "off", ..SETTINGS },
    ] {
        let shelf = Shelf::new(dir.path(), other, 1_000);
        assert!(shelf.load(&tokens(3), 1_000).unwrap().is_none(), "{other:?}");
        // Under its own name, too, the state of another is refused.
        let theirs = shelf.path(&shelf.key(&tokens(3)));
        std::fs::copy(&mine, &theirs).unwrap();
        assert!(matches!(shelf.load(&tokens(3), 1_000), Err(Wrong::Key)), "{other:?}");
    }
    let manifest = include_str!("../../../Cargo.toml");
    let version = ENGINE.rsplit(' ').next().unwrap();
    assert!(manifest.contains(&format!("llama-cpp-sys-2 = {{ version = \"={version}\"")), "{ENGINE}");
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::new(dir.path(), SETTINGS, 1_000);
    shelf.save(&tokens(3), b"state").unwrap();
    let (file, whole) = (only_file(dir.path()), std::fs::read(only_file(dir.path())).unwrap());
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, flipped).unwrap();
        assert!(matches!(shelf.load(&tokens(3), 1_000), Err(Wrong::Checksum)), "bit {bit}");
    }
    for len in 0..whole.len() {
        std::fs::write(&file, &whole[..len]).unwrap();
        assert!(shelf.load(&tokens(3), 1_000).is_err(), "cut to {len}");
    }
    shelf.save(&tokens(3), b"state").unwrap();
    assert_eq!(shelf.load(&tokens(3), 1_000).unwrap().unwrap(), b"state");
}

#[test]
fn a_link_is_not_followed_and_too_much_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::new(dir.path(), SETTINGS, 1_000);
    shelf.save(&tokens(3), &[7; 500]).unwrap();
    assert!(matches!(shelf.load(&tokens(3), 499), Err(Wrong::Size { bytes: 572, max: 571 })));
    let (file, elsewhere) = (only_file(dir.path()), dir.path().join("elsewhere"));
    std::fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert!(matches!(shelf.load(&tokens(3), 1_000), Err(Wrong::Io(_))));
    assert!(matches!(shelf.save(&tokens(3), b"x"), Err(Wrong::Io(_))));
}

#[test]
fn the_folder_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::new(dir.path(), SETTINGS, 3_000);
    for n in 1..=2 {
        shelf.save(&tokens(n), &[0; 1_000]).unwrap();
    }
    let refused = shelf.save(&tokens(3), &[0; 1_000]);
    assert!(matches!(refused, Err(Wrong::Size { bytes: 1_072, max: 856 })), "{refused:?}");
    std::fs::write(dir.path().join("notes"), "not ours").unwrap();
    let old = shelf.path(&shelf.key(&tokens(1)));
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    tidy(dir.path(), 2_000).unwrap();
    assert!(!old.exists() && dir.path().join("notes").exists());
    assert!(shelf.load(&tokens(2), 3_000).unwrap().is_some());
}
