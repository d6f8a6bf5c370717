//! Every connection to Postgres that the process opens, by what it is for: its name, which `pg_stat_activity` shows, and
//! how long it may keep its caller waiting.

use std::time::Duration;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The transaction of a step.
    Step,
    /// The views of a sync that pulls.
    Pull,
    /// What has to be committed beside a step: that all is on disk, a step's name, and questions that its snapshot hides.
    Beside,
    /// `/nuke` and `pgflume nuke`.
    Nuke,
    /// Whether tables wait to be rebuilt, between the calls of `serve`.
    Rebuild,
    /// `/resync` and `pgflume resync`: asks, and looks how far it is.
    Resync,
    /// `/status`, `/metrics` and `pgflume status`.
    Status,
    /// `/ready`.
    Ready,
    /// `pgflume dead`.
    Dead,
    /// `pgflume setup`, what it does in Postgres.
    Setup,
    /// `pgflume setup`, what it does in the replica.
    Alter,
    /// `pgflume teardown`.
    Teardown,
    /// `pgflume init`.
    Init,
    /// `pgflume doctor`.
    Doctor,
    /// Writes of clients.
    Push,
    /// Outgoing events.
    Events,
    /// `pgflume demo`.
    Demo,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Step,
        Self::Pull,
        Self::Beside,
        Self::Nuke,
        Self::Rebuild,
        Self::Resync,
        Self::Status,
        Self::Ready,
        Self::Dead,
        Self::Setup,
        Self::Alter,
        Self::Teardown,
        Self::Init,
        Self::Doctor,
        Self::Push,
        Self::Events,
        Self::Demo,
    ];

    /// Its name behind the application's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Pull => "pull",
            Self::Beside => "beside",
            Self::Nuke => "nuke",
            Self::Rebuild => "rebuild",
            Self::Resync => "resync",
            Self::Status => "status",
            Self::Ready => "ready",
            Self::Dead => "dead",
            Self::Setup => "setup",
            Self::Alter => "alter",
            Self::Teardown => "teardown",
            Self::Init => "init",
            Self::Doctor => "doctor",
            Self::Push => "push",
            Self::Events => "events",
            Self::Demo => "demo",
        }
    }

    /// How long one answer, or the next row of one, may take: somewhat longer than Postgres itself lets a statement
    /// take, where it has such a limit.
    pub fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Rebuild | Self::Status | Self::Ready | Self::Doctor | Self::Push | Self::Events => 15,
            Self::Resync | Self::Beside => 30,
            Self::Step | Self::Pull | Self::Nuke | Self::Dead | Self::Alter => 75,
            // These go through large catalogs and wait for locks; nobody waits for them.
            Self::Setup | Self::Teardown | Self::Init | Self::Demo => 600,
        })
    }
}
