//! The options of `tidegate certs`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Options of `certs`.
#[derive(Debug, Args)]
pub(crate) struct CertsArgs {
    /// Folder of the CA and of what it signs. Its ca.key signs for everybody: keep it off the gateways.
    #[arg(long, global = true, value_name = "DIR", default_value = "certs")]
    pub(crate) dir: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: CertsCommand,
}

/// Whom to certify.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Make the CA: ca.crt for everybody, ca.key for nobody; ten years.
    Init {
        /// What the CA is called.
        #[arg(long, default_value = "Tidegate private CA")]
        name: String,
    },
    /// A server certificate for the central broker; one year.
    Broker {
        /// Its host name, as gateways and workers write it in mqtts://HOST.
        host: String,
        #[command(flatten)]
        hosts: Hosts,
        #[command(flatten)]
        renew: Renew,
    },
    /// A certificate of a gateway, for its door and for the central broker; one year.
    Gateway {
        /// SITE/GATEWAY, as in its configuration: the central broker's rights go by it.
        name: String,
        #[command(flatten)]
        hosts: Hosts,
        #[command(flatten)]
        renew: Renew,
    },
    /// A client certificate of a device, whose name it carries; one year.
    Device {
        /// The device, as in its topics.
        name: String,
        #[command(flatten)]
        renew: Renew,
    },
    /// A client certificate of workers; one year.
    Worker {
        /// The user that the central broker's rights name.
        #[arg(default_value = "worker")]
        name: String,
        #[command(flatten)]
        renew: Renew,
    },
    /// Write the revocation list ca.crl anew, with more certificates on it.
    Crl {
        /// Certificate file whose bearer is not let in any more.
        #[arg(long, value_name = "FILE")]
        revoke: Vec<PathBuf>,
        /// Days until a newer list must be there: past it a door lets none of this CA's clients in.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Say how long everything in the folder is valid.
    Ls,
}

/// Further names of a server.
#[derive(Debug, Args)]
pub(crate) struct Hosts {
    /// Another host name or address by which clients reach it; may be repeated.
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) host: Vec<String>,
}

/// Whether what is there is replaced.
#[derive(Debug, Args)]
pub(crate) struct Renew {
    /// Set the certificate and key that are there aside and put new ones in their place.
    #[arg(long)]
    pub(crate) renew: bool,
}
