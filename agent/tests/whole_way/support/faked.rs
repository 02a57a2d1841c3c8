//! What a test makes a process believe: another time, a disk that takes no writes. Nothing else on the machine sees it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// More of a process's environment.
pub(crate) type Env = Vec<(&'static str, OsString)>;

/// A clock that shows another time, through Debian's libfaketime; timers run as they do.
pub(crate) fn clock(time: &str) -> Env {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file());
    let library = found.expect("libfaketime is missing, install it with: apt-get install libfaketime");
    vec![("LD_PRELOAD", library.into()), ("FAKETIME", time.into()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into())]
}

/// Every change of a file fails as on a file system that became read-only, while the switch is there. What is open stays
/// open and can be read, as after an error of ext4 with `errors=remount-ro`.
#[allow(dead_code, reason = "for the tests of the page only")]
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <unistd.h>
static int refused(void) {
    const char *mark = getenv("READ_ONLY_WHILE");
    int kept = errno, there = mark && access(mark, F_OK) == 0;
    errno = there ? EROFS : kept;
    return there;
}
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
ssize_t pwrite64(int fd, const void *from, size_t len, off64_t at) {
    return refused() ? -1 : NEXT(pwrite64)(fd, from, len, at);
}
int ftruncate64(int fd, off64_t len) { return refused() ? -1 : NEXT(ftruncate64)(fd, len); }
int rename(const char *from, const char *to) { return refused() ? -1 : NEXT(rename)(from, to); }
int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (flags & (O_WRONLY | O_RDWR | O_CREAT) && strncmp(path, "/dev/", 5) && refused()) return -1;
    return NEXT(open64)(path, flags, mode);
}
"#;

/// A disk that can become read-only.
#[allow(dead_code, reason = "for the tests of the page only")]
pub(crate) struct Disk {
    library: PathBuf,
    switch: PathBuf,
}

#[allow(dead_code, reason = "for the tests of the page only")]
impl Disk {
    /// One that takes writes.
    pub(crate) fn new(folder: &Path) -> Self {
        let (source, library) = (folder.join("disk.c"), folder.join("disk.so"));
        fs::write(&source, SOURCE).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output();
        let built = built.expect("a C compiler is there: llama.cpp needs one");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Self { library, switch: folder.join("read-only") }
    }

    pub(crate) fn env(&self) -> Env {
        vec![("LD_PRELOAD", self.library.clone().into()), ("READ_ONLY_WHILE", self.switch.clone().into())]
    }

    pub(crate) fn becomes_read_only(&self) {
        fs::write(&self.switch, "").unwrap();
    }

    pub(crate) fn takes_writes_again(&self) {
        fs::remove_file(&self.switch).unwrap();
    }
}
