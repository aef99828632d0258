//! The Pushgateway world: paths of groups, what a push does to its group, and how groups are shown.
//!
//! Behaves as Prometheus' Pushgateway 1.x does, with the differences that a database wants: the series that a push ends
//! get a staleness marker, and types may differ between pushes. Pure here; the handlers keep the groups and write.

mod group;
mod path;
mod view;

pub(super) use group::{Change, Group, Groups, Method};
pub(super) use path::{GroupKey, parse_path};
pub(super) use view::{families_of, groups_json};
