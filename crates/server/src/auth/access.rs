//! Roles, and what they may do.

use super::Refused;
use std::fmt;
use widgets_registry::Operation;

/// Something that a role may do. None of them includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Look widgets up.
    Read,
    /// The four operations.
    Write,
    /// Read what the service tells of itself, `/metrics`, and take the whole store, `/backup` and `/replication`.
    Admin,
}

/// What something is done with, as PostgreSQL would say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Function(Operation),
    Widgets,
    Changes,
    Metrics,
    Backup,
    Replication,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(operation) => write!(f, "function {}", operation.as_str()),
            Self::Widgets => f.write_str("table widgets"),
            Self::Changes => f.write_str("table changes"),
            Self::Metrics => f.write_str("view metrics"),
            Self::Backup => f.write_str("view backup"),
            Self::Replication => f.write_str("replication"),
        }
    }
}

impl Permission {
    const fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Admin => 4,
        }
    }
}

/// Which roles have which permission, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Those that may look widgets up.
    pub read: Vec<String>,
    /// Those that may call the operations.
    pub write: Vec<String>,
    /// Those that may read the metrics, take backups and follow as standbys.
    pub admin: Vec<String>,
}

impl Roles {
    /// Whether any list has this role.
    #[must_use]
    pub fn contains(&self, role: &str) -> bool {
        !self.access(role, None).is_nothing()
    }

    /// What this role may do: nothing, if no list has it.
    pub(super) fn access(&self, role: &str, anonymous_role: Option<&str>) -> Access {
        let lists = [
            (&self.read, Permission::Read),
            (&self.write, Permission::Write),
            (&self.admin, Permission::Admin),
        ];
        let has = |list: &[String]| list.iter().any(|each| each == role);
        let bits = lists
            .into_iter()
            .filter(|(list, _)| has(list))
            .map(|(_, permission)| permission.bit());
        Access {
            permissions: bits.sum(),
            anonymous: anonymous_role == Some(role),
        }
    }
}

/// What the sender of a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    permissions: u8,
    /// The role is the anonymous one. So what it lacks may be had with a token.
    anonymous: bool,
}

impl Access {
    /// For what nobody has to ask for.
    pub(crate) const NOTHING: Self = Self {
        permissions: 0,
        anonymous: true,
    };

    pub(super) const EVERYTHING: Self = Self {
        permissions: Permission::Read.bit() | Permission::Write.bit() | Permission::Admin.bit(),
        anonymous: true,
    };

    pub(super) const fn is_nothing(self) -> bool {
        self.permissions == 0
    }

    /// Whether the sender proved to be of a role that may know of hosts, users and files. Not where
    /// nobody is asked: there everyone may do everything, and nobody is known.
    pub(crate) const fn administers(self) -> bool {
        !self.anonymous && self.permissions & Permission::Admin.bit() != 0
    }

    /// Refuses who may not do this with `object`.
    pub(crate) fn require(self, permission: Permission, object: Object) -> Result<(), Refused> {
        if self.permissions & permission.bit() != 0 {
            return Ok(());
        }
        Err(Refused::Permission {
            object,
            anonymous: self.anonymous,
        })
    }
}
