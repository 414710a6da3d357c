//! The defaults; `config/pulsegate.toml` documents each with its reason.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::*;

impl Default for Config {
    fn default() -> Config {
        Config {
            upstream: Upstream {
                url: "http://127.0.0.1:3000".into(),
                connect_timeout: Duration::from_secs(5),
                handshake_timeout: Duration::from_secs(10),
                response_timeout: Duration::from_secs(60),
                pool_idle_max: 32,
                hold: Duration::ZERO,
            },
            listen: Listen {
                data: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7080),
                ops: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7081),
                control: ControlAddr::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7082)),
            },
            liveness: Liveness {
                profile: Profile::Balanced,
                ping_interval: None,
                verdict_after: None,
                client_frozen_after: None,
                app_frozen_after: Duration::from_secs(30),
                idle_timeout: Duration::from_secs(60),
                client_write_stall_after: None,
                app_write_stall_after: Duration::from_secs(30),
            },
            delivery: Delivery {
                confirm: Confirm::Received,
                confirm_interval: Duration::from_secs(1),
                ttl: Duration::from_secs(30),
                messages_max: 1024,
                bytes_max: 256 * 1024,
                outcomes_max: 10_000,
                outcome_ttl: Duration::from_secs(600),
            },
            v1: V1 {
                offer: Switch::On,
                window_messages: 1024,
                window_bytes: 256 * 1024,
                message_bytes_max: 1024 * 1024,
                resume_window: Duration::from_secs(120),
                parked_bytes_max: 256 * 1024 * 1024,
                confirm_within: Duration::from_secs(1),
                page_frozen_after: Duration::from_secs(60),
                app_ack: AppAck::Received,
            },
            limits: Limits {
                sessions_max: 9_000,
                sessions_per_address_max: 9_000,
                connections_max: 10_000,
                header_timeout: Duration::from_secs(10),
                header_bytes_max: 64 * 1024,
                headers_max: 128,
                frame_bytes_max: 256 * 1024 * 1024,
                message_bytes_max: 256 * 1024 * 1024,
                fragments_max: 100_000,
                frame_timeout: Duration::from_secs(30),
                frame_rate_min: 1024,
                control_frames_rate_max: 100,
                close_timeout: Duration::from_secs(5),
                label_bytes_max: 256,
            },
            registry: Registry {
                labels: BTreeMap::new(),
                tombstones_max: 10_000,
                tombstone_ttl: Duration::from_secs(600),
                events_max: 10_000,
            },
            forwarded: Forwarded { trusted: Vec::new() },
            origin: Origin { allow: Vec::new() },
            control: Control {
                token_file: None,
                hosts: Vec::new(),
                origins: Vec::new(),
                feeds_max: 32,
                waits_max: 256,
            },
            close: Close { dead_client_code: 4408, dead_app_code: 1012, frozen_app_code: 1013 },
            drain: Drain { window: Duration::from_secs(10), deadline: Duration::from_secs(20) },
            log: Log { level: "info".into(), format: LogFormat::Auto },
        }
    }
}
