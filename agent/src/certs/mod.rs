//! `tidegate certs`: a private CA for those who have none. Everything lies in one folder: `ca.crt` and `ca.crl` for
//! everybody, `ca.key` for nobody, and `KIND/NAME.crt` with `KIND/NAME.key` for each party.
//!
//! Invariants: files are 0600 and folders 0700; nothing that is there is overwritten, what is renewed is set aside; a
//! certificate and its key come into place each in one step, so that a running gateway never reads half a file.

mod authority;
mod files;
mod revoked;

use crate::cli::{CertsArgs, CertsCommand};
use crate::expiry::{self, Paper};
use crate::failure::Failure;
use crate::terminal::print;
use crate::trusted_time;
use authority::{Authority, Party};
use files::Pair;
use serde_json::{Value, json};
use std::fmt::Display;
use std::net::IpAddr;
use std::path::Path;
use tidegate_schemas::{DeviceId, Origin};

/// Names by which a gateway reaches itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Longest name on a certificate (RFC 5280, ub-common-name).
const NAME_CHARS_MAX: usize = 64;

/// Runs the command.
pub(crate) fn run(args: &CertsArgs) -> Result<(), Failure> {
    if trusted_time::system_ms() < tidegate_spool::BUILD_DATE_MS {
        let what = "this machine's clock stands before this program was built: certificates would begin too early";
        return Err(Failure::other(what).next("set the clock, then run this again"));
    }
    let dir = args.dir.as_path();
    let written = match &args.command {
        CertsCommand::Init { name } => init(dir, name)?,
        CertsCommand::Ls => return ls(dir, args.json),
        CertsCommand::Crl { revoke, days } => revoked::write(dir, &Authority::open(dir)?, revoke, *days)?,
        party => {
            let (party, renew) = party_of(party)?;
            issue(dir, &Authority::open(dir)?, &party, renew)?
        }
    };
    let lines: String = written.iter().map(|paper| format!("wrote  {}\n", told(paper))).collect();
    let json = || Value::from(written.iter().map(expiry::json).collect::<Vec<_>>());
    print(&if args.json { format!("{}\n", json()) } else { lines })
}

/// File and end of a certificate, or the file alone of a key.
fn told(paper: &Paper) -> String {
    match paper.until {
        Some(until) => format!("{}, valid until {until}", paper.path.display()),
        None => paper.path.display().to_string(),
    }
}

fn init(dir: &Path, name: &str) -> Result<Vec<Paper>, Failure> {
    check_name(name)?;
    let pair = Pair::of_ca(dir);
    files::folder(dir)?;
    pair.absent().map_err(|failure| {
        failure.next("use the CA that is there, or another --dir; a new CA needs new certificates for everybody")
    })?;
    let (key, cert) = authority::new_ca(name)?;
    pair.write(&key, &cert)?;
    Ok(pair.papers())
}

fn issue(dir: &Path, authority: &Authority, party: &Party, renew: bool) -> Result<Vec<Paper>, Failure> {
    let pair = Pair::of(dir, party.kind(), party.name());
    match renew {
        true => pair.set_aside()?,
        false => pair.absent().map_err(|failure| failure.next("add --renew to set it aside and make a new one"))?,
    }
    let (key, cert) = authority.issue(party)?;
    pair.write(&key, &cert)?;
    Ok(pair.papers())
}

fn party_of(command: &CertsCommand) -> Result<(Party, bool), Failure> {
    Ok(match command {
        CertsCommand::Broker { host, hosts, renew } => {
            check_host(host)?;
            (Party::Broker { host: host.clone(), hosts: all_hosts(&hosts.host, &[])? }, renew.renew)
        }
        CertsCommand::Gateway { name, hosts, renew } => {
            let origin = origin(name)?;
            (Party::Gateway { origin, hosts: all_hosts(&hosts.host, &LOOPBACK)? }, renew.renew)
        }
        CertsCommand::Device { name, renew } => {
            let device: DeviceId = name.parse().map_err(|e| Failure::other(e).next("choose another name"))?;
            if device.as_str().starts_with("local-") {
                let what = format!("{name}: names that begin with local- are for clients without a name, on loopback");
                return Err(Failure::other(what).next("choose another name"));
            }
            (Party::Device(device), renew.renew)
        }
        CertsCommand::Worker { name, renew } => {
            check_file_name(name)?;
            (Party::Worker(name.clone()), renew.renew)
        }
        CertsCommand::Init { .. } | CertsCommand::Crl { .. } | CertsCommand::Ls => {
            unreachable!("these name no party and are done before")
        }
    })
}

fn origin(name: &str) -> Result<Origin, Failure> {
    let wrong = |what: &dyn Display| {
        let next = "name it as its configuration does, such as plant-1/north for site plant-1 and gateway north";
        Failure::other(format!("{name:?} is not SITE/GATEWAY: {what}")).next(next)
    };
    let (site, gateway) = name.split_once('/').ok_or_else(|| wrong(&"there is no slash"))?;
    if [site, gateway].iter().any(|part| part.starts_with('.')) {
        return Err(wrong(&"a name becomes a folder, so it does not begin with a dot"));
    }
    Ok(Origin { site: site.parse().map_err(|e| wrong(&e))?, gateway: gateway.parse().map_err(|e| wrong(&e))? })
}

fn all_hosts(given: &[String], own: &[&str]) -> Result<Vec<String>, Failure> {
    given.iter().try_for_each(|host| check_host(host))?;
    let mut hosts: Vec<String> = given.to_vec();
    hosts.extend(own.iter().map(ToString::to_string).filter(|own| !given.contains(own)));
    Ok(hosts)
}

/// A host name (RFC 1123) or an address.
fn check_host(host: &str) -> Result<(), Failure> {
    let label = |label: &str| {
        let inner = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        !label.is_empty() && label.len() <= 63 && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if host.parse::<IpAddr>().is_ok() || (host.len() <= NAME_CHARS_MAX && host.split('.').all(label)) {
        return Ok(());
    }
    let what = format!("{host:?} is neither a host name of at most {NAME_CHARS_MAX} characters nor an address");
    Err(Failure::other(what).next("write it as clients do in mqtts://HOST, without scheme and port"))
}

fn check_name(name: &str) -> Result<(), Failure> {
    let fine = !name.trim().is_empty() && name.chars().count() <= NAME_CHARS_MAX && !name.chars().any(char::is_control);
    let what = || format!("{name:?} is no name of 1 to {NAME_CHARS_MAX} printable characters");
    if fine { Ok(()) } else { Err(Failure::other(what()).next("choose another name")) }
}

/// A name that is also a file's.
fn check_file_name(name: &str) -> Result<(), Failure> {
    name.parse::<DeviceId>().map(drop).map_err(|e| Failure::other(e).next("choose another name"))
}

fn ls(dir: &Path, as_json: bool) -> Result<(), Failure> {
    let now_ms = trusted_time::now_ms();
    let papers = expiry::of_folder(dir);
    if papers.is_empty() {
        let what = format!("{} holds no certificate", dir.display());
        return Err(Failure::other(what).next("make a CA with `tidegate certs init`, or name its folder with --dir"));
    }
    if as_json {
        let list: Vec<Value> = papers.iter().map(expiry::json).collect();
        return print(&format!("{}\n", json!(list)));
    }
    print(&papers.iter().map(|paper| format!("{}\n", paper.sentence(now_ms))).collect::<String>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_of_gateways_are_site_and_gateway() {
        assert_eq!(origin("plant/north").unwrap().gateway.as_str(), "north");
        for wrong in ["north", "a/b/c", "/north", "plant/", "pl ant/north", "../x"] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for fine in ["central", "central.example.org", "192.0.2.7", "2001:db8::1", "plant_1"] {
            assert!(check_host(fine).is_ok(), "{fine}");
        }
        for wrong in ["", "mqtts://central", "central:8883", "a b", "-x", "a..b", &"x".repeat(65)] {
            assert!(check_host(wrong).is_err(), "{wrong}");
        }
    }
}
