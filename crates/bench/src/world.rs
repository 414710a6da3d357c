//! Two networks of their own: the gateway and the app in one, the clients in the other, and a black hole
//! between them for those who are to vanish.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// The gateway's end of the link.
pub(crate) const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const CLIENTS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const GATEWAY_DEVICE: &str = "gateway";
const CLIENTS_DEVICE: &str = "clients";

/// Both namespaces; they are removed on drop.
#[derive(Debug)]
pub(crate) struct World {
    gateway: String,
    clients: String,
}

impl World {
    /// Makes both namespaces and moves the calling thread into the gateway's: what it starts from now on,
    /// threads and processes, lives there. To be called before any other thread exists.
    ///
    /// # Errors
    /// Not Linux, not root, no `ip`, no `nft`, or they refuse.
    pub(crate) fn enter() -> Result<World> {
        ensure!(
            cfg!(target_os = "linux") && rustix::process::geteuid().is_root(),
            "needs Linux and root: clients vanish for real, in network namespaces and by nftables"
        );
        let name = |what: &str| format!("pulsegate-bench-{}-{what}", std::process::id());
        let world = World { gateway: name("gateway"), clients: name("clients") };
        for space in [&world.gateway, &world.clients] {
            ip(&["netns", "add", space])?;
            ip(&["-n", space, "link", "set", "lo", "up"])?;
        }
        world.link()?;
        enter_namespace(&world.gateway)?;
        nft(&format!(
            "table inet bench {{
                set dead {{ type inet_service; }}
                chain in {{ type filter hook input priority 0; iifname {GATEWAY_DEVICE} tcp sport @dead drop; }}
                chain out {{ type filter hook output priority 0; oifname {GATEWAY_DEVICE} tcp dport @dead drop; }}
            }}"
        ))?;
        Ok(world)
    }

    /// Returns a command that runs `program` among the clients; the process has its own id, not a child's.
    pub(crate) fn among_clients(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.clients]).arg(program);
        command
    }

    fn link(&self) -> Result<()> {
        let pair = ["link", "add", GATEWAY_DEVICE, "netns", &self.gateway, "type", "veth"];
        ip(&[&pair[..], &["peer", "name", CLIENTS_DEVICE, "netns", &self.clients]].concat())?;
        let ends = [
            (&self.gateway, GATEWAY_DEVICE, GATEWAY_ADDRESS),
            (&self.clients, CLIENTS_DEVICE, CLIENTS_ADDRESS),
        ];
        for (space, device, address) in ends {
            ip(&["-n", space, "address", "add", &format!("{address}/24"), "dev", device])?;
            ip(&["-n", space, "link", "set", device, "up"])?;
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for space in [&self.gateway, &self.clients] {
            // Also after a failure half way, when one of them is not there yet.
            let _ = Command::new("ip").args(["netns", "del", space]).stderr(Stdio::null()).status();
        }
    }
}

/// Lets everything from and to these ports of the clients vanish, at once and for good.
///
/// # Errors
/// `nft` refuses.
pub(crate) fn black_hole(ports: &[u16]) -> Result<()> {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    nft(&format!("add element inet bench dead {{ {} }}", ports.join(", ")))
}

/// Ends every black hole.
///
/// # Errors
/// `nft` refuses.
pub(crate) fn heal() -> Result<()> {
    nft("flush set inet bench dead")
}

#[cfg(target_os = "linux")]
fn enter_namespace(name: &str) -> Result<()> {
    use std::os::fd::AsFd;

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    let space = std::fs::File::open(format!("/run/netns/{name}"))?;
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter the network namespace {name}"))
}

#[cfg(not(target_os = "linux"))]
fn enter_namespace(_name: &str) -> Result<()> {
    bail!("needs Linux")
}

fn ip(args: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(args).output().context("cannot run `ip` (Debian package iproute2)")?;
    if !done.status.success() {
        bail!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

fn nft(rules: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `nft` (Debian package nftables)")?;
    child.stdin.take().expect("it is piped").write_all(rules.as_bytes())?;
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("nft: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
