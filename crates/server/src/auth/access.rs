//! Roles and their permissions.

use super::Refused;
use std::fmt;
use widgets_registry::Operation;

/// A permission of a role. None of them includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Looking widgets up.
    Read,
    /// Calling the four operations.
    Write,
    /// Reading the service's own data, `/metrics`, and the whole store, `/backup` and
    /// `/replication`.
    Admin,
}

/// The object of an action, as PostgreSQL would name it.
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

/// The roles that have each permission, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// The roles that may look widgets up.
    pub read: Vec<String>,
    /// The roles that may call the operations.
    pub write: Vec<String>,
    /// The roles that may read the metrics, take backups and follow as standbys.
    pub admin: Vec<String>,
}

impl Roles {
    /// Reports whether any list contains this role.
    #[must_use]
    pub fn contains(&self, role: &str) -> bool {
        !self.access(role, None).is_nothing()
    }

    /// Returns what this role may do: nothing, if no list contains it.
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

/// The permissions of a request's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    permissions: u8,
    /// Whether the role is the anonymous one, so that a token might grant what it lacks.
    anonymous: bool,
}

impl Access {
    /// No permissions, for requests that need none.
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

    /// Reports whether the sender proved to have a role that may see the names of hosts, users and
    /// files. False if authentication is off: then everyone may do everything, but nobody is known.
    pub(crate) const fn administers(self) -> bool {
        !self.anonymous && self.permissions & Permission::Admin.bit() != 0
    }

    /// Refuses a sender without this permission for `object`.
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
