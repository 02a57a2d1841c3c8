# Sourced by demo and test: sees to it that this machine has what a build and a run need, and says what it does.
# Debian and Ubuntu, through apt, as root or with sudo. Elsewhere, or without rights, it names what is missing.

# Package, the command, file or pattern of files that shows it is there, why it is needed.
MACHINE_PARTS='
g++|command:g++|compiles llama.cpp
make|command:make|compiles llama.cpp
cmake|command:cmake|configures llama.cpp
libclang-dev|glob:/usr/lib/llvm-*/lib/clang/*/include/stddef.h|reads the headers of llama.cpp for Rust
mosquitto|file:/usr/sbin/mosquitto|is the central broker of the demo and the tests
iproute2|command:ip|gives tests a network of their own
libfaketime|glob:/usr/lib/*/faketime/libfaketimeMT.so.1|moves the clock of a gateway under test
mosquitto-clients|command:mosquitto_pub|shows that any MQTT client will do
'
# What the tests of the firmware examples need besides, in the same form.
MACHINE_FIRMWARE_PARTS='
python3|command:python3|drives the tests of the firmware examples
python3-venv|glob:/usr/lib/python3*/ensurepip/__init__.py|keeps the packages of the Python fleet apart
openssl|command:openssl|makes the certificates of those tests
gcc-arm-none-eabi|command:arm-none-eabi-gcc|compiles the C example for Cortex-M
libnewlib-arm-none-eabi|file:/usr/lib/arm-none-eabi/newlib/nano.specs|is the C library of that example
qemu-system-arm|command:qemu-system-arm|is the Cortex-M board
dpkg-dev|command:dpkg-source|unpacks the sources of lwIP and mbedTLS
rustc-web|file:/usr/bin/rustc|compiles the Rust example for Cortex-M
rust-web-src|file:/usr/lib/rustlib/src/rust/library/core/Cargo.toml|is the core library of that example
gcc-avr|command:avr-gcc|compiles the Arduino example
avr-libc|file:/usr/lib/avr/include/avr/io.h|is the C library of that example
arduino-core-avr|file:/usr/share/arduino/hardware/arduino/avr/cores/arduino/Arduino.h|is the Arduino core
libsimavr-dev|file:/usr/include/simavr/sim_avr.h|is the Arduino board
libelf-dev|file:/usr/include/libelf.h|reads the image for that board
nodejs|command:node|runs MicroPython
npm|command:npm|fetches MicroPython
'
# What deploy/build-arm64 needs besides, in the same form.
MACHINE_ARM64_PARTS='
python3|command:python3|tries the build for ARM64
openssl|command:openssl|makes the certificates of that trial
gcc-aarch64-linux-gnu|command:aarch64-linux-gnu-gcc|links for ARM64
libc6-dev-arm64-cross|file:/usr/aarch64-linux-gnu/include/stdio.h|is the C library for ARM64
g++-aarch64-linux-gnu|command:aarch64-linux-gnu-g++|compiles llama.cpp for ARM64
qemu-user-static|command:qemu-aarch64-static|runs what was built for ARM64
rustc-web|file:/usr/bin/rustc|compiles Rust for ARM64
rust-web-src|file:/usr/lib/rustlib/src/rust/library/std/Cargo.toml|is the standard library for ARM64
'

machine_has() {
    case $1 in
    command:*) command -v "${1#command:}" >/dev/null ;;
    file:*) [ -r "${1#file:}" ] ;;
    glob:*) compgen -G "${1#glob:}" >/dev/null ;;
    esac
}

# Runs a command as root.
machine_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a broker at port 1883 when it installs one, and a Prometheus; the tests start their own.
machine_install() {
    local policy=/usr/sbin/policy-rc.d ours=no status=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | machine_root tee "$policy" >/dev/null
        machine_root chmod 755 "$policy"
        ours=yes
    fi
    machine_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" >&2 || status=$?
    if [ "$ours" = yes ]; then machine_root rm -f "$policy"; fi
    local started
    for started in mosquitto prometheus; do
        if [ "$status" = 0 ] && [[ " $* " == *" $started "* ]] && [ -d /run/systemd/system ]; then
            machine_root systemctl disable --now "$started.service" >&2 || true
        fi
    done
    return "$status"
}

# Installs the parts that are missing; `firmware` and `arm64` ask for those of the firmware examples and of the build for
# ARM64 too.
machine_prepare() {
    local package sign why missing=() parts=$MACHINE_PARTS
    case ${1-} in
    firmware) parts+=$MACHINE_FIRMWARE_PARTS ;;
    arm64) parts+=$MACHINE_ARM64_PARTS ;;
    esac
    if ! command -v cargo >/dev/null; then
        echo 'cargo is missing: install Rust from https://rustup.rs, then run this again' >&2
        return 1
    fi
    while IFS='|' read -r package sign why; do
        [ -n "$package" ] || continue
        machine_has "$sign" && continue
        echo "missing: $package, which $why" >&2
        missing+=("$package")
    done <<<"$parts"
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "this machine has no apt-get: install ${missing[*]} by its own means, then run this again" >&2
        return 1
    fi
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        echo "no root and no sudo: as root run apt-get install ${missing[*]}, then run this again" >&2
        return 1
    fi
    echo "installing through apt: ${missing[*]}" >&2
    machine_root apt-get -qq update >&2
    machine_install "${missing[@]}"
}
