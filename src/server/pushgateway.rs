//! The Pushgateway world: paths of groups, what a push does to its group, and how groups are shown.
//!
//! Behaves as Prometheus' Pushgateway 1.x does, with the differences that a database wants: the series that a push ends
//! get a staleness marker, types may differ between pushes, and live groups are written again and again.

mod group;
mod handlers;
mod path;
mod view;

pub(super) use group::Groups;
pub(super) use handlers::{delete, gateway_status, groups, hello, metrics, post, put, repeat, restore};
pub(super) use path::percent_decode;
