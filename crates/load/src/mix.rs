//! The kinds of requests in a run, and how often each is sent.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use widgets_registry::Operation;

/// A kind of request: one of the four operations, a lookup, or a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `POST /rpc/add_widget`
    AddWidget,
    /// `POST /rpc/remove_widget`
    RemoveWidget,
    /// `POST /rpc/associate_widgets`
    AssociateWidgets,
    /// `POST /rpc/remove_association`
    RemoveAssociation,
    /// `GET /widgets/{serial_number}`
    Lookup,
    /// `GET /widgets?serial_number=…`
    List,
}

impl Kind {
    /// Every kind, in the order of their indices.
    pub const ALL: [Self; 6] = [
        Self::AddWidget,
        Self::RemoveWidget,
        Self::AssociateWidgets,
        Self::RemoveAssociation,
        Self::Lookup,
        Self::List,
    ];

    /// Returns the kind's name: the operation's name, `lookup` or `list`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddWidget => Operation::AddWidget.as_str(),
            Self::RemoveWidget => Operation::RemoveWidget.as_str(),
            Self::AssociateWidgets => Operation::AssociateWidgets.as_str(),
            Self::RemoveAssociation => Operation::RemoveAssociation.as_str(),
            Self::Lookup => "lookup",
            Self::List => "list",
        }
    }

    /// Returns its position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Parses a name, or its short form on the command line.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "add" => Some(Self::AddWidget),
            "remove" => Some(Self::RemoveWidget),
            "associate" => Some(Self::AssociateWidgets),
            "dissociate" => Some(Self::RemoveAssociation),
            _ => Self::ALL.into_iter().find(|kind| kind.as_str() == text),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How often each kind is sent, as weights, of which only the ratios matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mix([u32; Kind::ALL.len()]);

impl Default for Mix {
    /// 36 % additions and associations each, 9 % removals of each of the two, 10 % lookups, no
    /// lists.
    fn default() -> Self {
        Self([36, 9, 36, 9, 10, 0])
    }
}

impl Mix {
    /// Returns the kind that a number below [`Self::total`] selects.
    #[must_use]
    pub fn choose(&self, number: u32) -> Kind {
        let mut rest = number;
        for kind in Kind::ALL {
            let weight = self.0[kind.index()];
            if rest < weight {
                return kind;
            }
            rest -= weight;
        }
        Kind::Lookup
    }

    /// Returns the sum of the weights, which is above 0.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }
}

impl FromStr for Mix {
    type Err = String;

    /// Parses `add=40,associate=40,remove=10,dissociate=10`. Kinds that are not named are not sent.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = [0; Kind::ALL.len()];
        for part in text.split(',').map(str::trim) {
            let (name, weight) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not of the form KIND=WEIGHT"))?;
            let kind = Kind::parse(name).ok_or_else(|| {
                let known = Kind::ALL.map(Kind::as_str).join(", ");
                format!("`{name}` is none of {known}, nor add, remove, associate, dissociate")
            })?;
            let weight: u16 = weight.parse().map_err(|_| {
                format!("the weight of {name} must be 0 to 65535, `{weight}` was given")
            })?;
            if std::mem::replace(&mut weights[kind.index()], weight.into()) != 0 {
                return Err(format!("{kind} is named twice"));
            }
        }
        let mix = Self(weights);
        if mix.total() == 0 {
            return Err("at least one weight must be above 0".into());
        }
        Ok(mix)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Kind::ALL
            .into_iter()
            .filter(|kind| self.0[kind.index()] > 0);
        for (position, kind) in named.enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{kind}={}", self.0[kind.index()])?;
        }
        Ok(())
    }
}

/// Parses a share from 0 to 1 as written on the command line.
///
/// `5%` and `0.05` are equal.
pub fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.trim().strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text.trim(), 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if (0.0..=scale).contains(&number) => Ok(number / scale),
        _ => Err(format!(
            "must be 0% to 100% (or 0 to 1), `{text}` was given"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_round_trips_and_selects_kinds_by_weight() {
        use Kind::{AddWidget as A, AssociateWidgets as S, RemoveWidget as R};
        let mix: Mix = "add=40, associate_widgets=40,dissociate=0,remove=20"
            .parse()
            .unwrap();
        assert_eq!(
            mix.to_string(),
            "add_widget=40,remove_widget=20,associate_widgets=40"
        );
        assert_eq!(mix.to_string().parse(), Ok(mix));
        let chosen: Vec<Kind> = [0, 39, 40, 59, 60, 99].map(|n| mix.choose(n)).to_vec();
        assert_eq!(chosen, [A, A, R, R, S, S]);
    }

    #[test]
    fn errors_in_a_mix_are_explained() {
        let refused = |text: &str| text.parse::<Mix>().unwrap_err();
        assert_eq!(refused("add"), "`add` is not of the form KIND=WEIGHT");
        assert!(refused("delete=1").starts_with("`delete` is none of add_widget,"));
        assert_eq!(
            refused("add=x"),
            "the weight of add must be 0 to 65535, `x` was given"
        );
        assert_eq!(refused("add=1,add_widget=2"), "add_widget is named twice");
        assert_eq!(refused("add=0"), "at least one weight must be above 0");
    }

    #[test]
    fn shares_are_percentages_or_fractions() {
        assert_eq!(share("5%"), Ok(0.05));
        assert_eq!(share("0.25"), Ok(0.25));
        assert_eq!(share("100%"), Ok(1.0));
        assert!(share("101%").is_err() && share("-1").is_err() && share("NaN").is_err());
    }
}
