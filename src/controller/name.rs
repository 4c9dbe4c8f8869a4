//! Names as operators and nodes write them.

use std::fmt;

use rand::distr::{Alphanumeric, SampleString};
use slim_compat_grpc::proto::southbound::Subscription;
use slim_compat_grpc::session_id;
use slim_wire::limits::NAME_COMPONENT_BYTES;
use slim_wire::{Id, TextName};
use thiserror::Error;

/// The texts of a name, and of which instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteName {
    /// Organization, namespace and application.
    pub components: [String; 3],
    /// The instance, or any.
    pub instance: Option<u64>,
}

/// A text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not three parts, or an empty one.
    #[error("invalid name format, expected 3 components separated by '/', got '{got}'")]
    Three {
        /// The text.
        got: String,
    },
    /// Not four parts of which the last is a number, or an empty one.
    #[error("invalid route format '{got}', expected 'company/namespace/appname/appinstance'")]
    Four {
        /// The text.
        got: String,
    },
    /// A part is empty, or too long to be routed by.
    #[error("invalid name: expected components of 1 to {NAME_COMPONENT_BYTES} bytes")]
    Component,
}

/// What nodes write for "any instance".
const ANY: u64 = u64::MAX;

impl RouteName {
    /// A name from its parts; all ones is any instance.
    ///
    /// # Errors
    /// [`NameError::Component`].
    pub fn new(components: [String; 3], instance: Option<u64>) -> Result<Self, NameError> {
        let fits = |text: &String| (1..=NAME_COMPONENT_BYTES).contains(&text.len());
        match components.iter().all(fits) {
            true => Ok(Self { components, instance: instance.filter(|id| *id != ANY) }),
            false => Err(NameError::Component),
        }
    }

    /// `org/namespace/app`.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn three(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Three { got: text.to_owned() };
        match *text.split('/').collect::<Vec<_>>() {
            [org, namespace, app] if ![org, namespace, app].contains(&"") => {
                Self::new([org, namespace, app].map(str::to_owned), None)
            }
            _ => Err(wrong()),
        }
    }

    /// `org/namespace/app/instance`.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn four(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Four { got: text.to_owned() };
        let (name, instance) = text.rsplit_once('/').ok_or_else(wrong)?;
        let number = !instance.is_empty() && instance.bytes().all(|byte| byte.is_ascii_digit());
        let instance = instance.parse().ok().filter(|_| number).ok_or_else(wrong)?;
        match Self::three(name) {
            Ok(name) => Ok(Self { instance: Some(instance), ..name }),
            Err(NameError::Component) => Err(NameError::Component),
            Err(_) => Err(wrong()),
        }
    }

    /// The name in a subscription.
    ///
    /// # Errors
    /// [`NameError::Component`].
    pub fn of(subscription: &Subscription) -> Result<Self, NameError> {
        let Subscription { component_0, component_1, component_2, id, .. } = subscription;
        Self::new([component_0, component_1, component_2].map(String::clone), *id)
    }

    /// The subscription that a node gets for it, over `connection`.
    pub fn to_subscription(&self, connection: &str) -> Subscription {
        let [component_0, component_1, component_2] = self.components.clone();
        Subscription {
            component_0,
            component_1,
            component_2,
            id: Some(self.instance.unwrap_or(ANY)),
            connection_id: connection.to_owned(),
            node_id: None,
        }
    }

    /// Whether it is that of the controller itself, to which nothing is routed.
    pub fn is_controller(&self) -> bool {
        self.components.iter().all(|component| component == "controller")
    }

    /// Whether both have the same texts.
    pub fn is_instance_of(&self, other: &Self) -> bool {
        self.components == other.components
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.components.join("/"))?;
        self.instance.map_or(Ok(()), |instance| write!(f, "/{instance}"))
    }
}

/// `name->destination`, as operators know routes.
pub fn route_text(subscription: &Subscription, destination: &str) -> String {
    let Subscription { component_0, component_1, component_2, id, .. } = subscription;
    let id = match id {
        None => "<nil>".to_owned(),
        Some(0) => String::new(),
        Some(id) => format!("value:{id}"),
    };
    format!("{component_0}/{component_1}/{component_2}/{id}->{destination}")
}

/// A name for a channel beside its moderator: 18 letters and digits. Applications take the number
/// of its session.
pub fn draw_channel(moderator: &RouteName) -> String {
    let [org, namespace, app] = moderator.components.each_ref().map(String::as_str);
    let leader = text_name([org, namespace, app], moderator.instance.unwrap_or(ANY));
    loop {
        let drawn = Alphanumeric.sample_string(&mut rand::rng(), 18);
        if session_id(&leader, &text_name([org, namespace, &drawn], ANY)).is_some() {
            return format!("{org}/{namespace}/{drawn}");
        }
    }
}

fn text_name(components: [&str; 3], instance: u64) -> TextName {
    TextName::new(components, Id::from_u64(instance)).expect("components are short enough")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_three_parts_or_four_with_a_number() {
        let name = RouteName::four("agntcy/ns/client-9/123").expect("a name");
        assert_eq!(name.instance, Some(123));
        assert_eq!(name.to_string(), "agntcy/ns/client-9/123");
        for text in ["a/b/c", "a/b/c/", "a/b/c/x", "a/b/c/+1", "a/b//1", "a/b/c/d/1", "", "1"] {
            let told = RouteName::four(text).expect_err("no name").to_string();
            assert!(told.contains(&format!("invalid route format '{text}'")), "{told}");
        }
        for text in ["a/b/c/1", "a/b", "a//c", "/b/c", ""] {
            let told = RouteName::three(text).expect_err("no name").to_string();
            assert!(told.contains("expected 3 components separated by '/'"), "{told}");
        }
        let long = format!("a/b/{}", "c".repeat(NAME_COMPONENT_BYTES + 1));
        assert_eq!(RouteName::three(&long), Err(NameError::Component));
    }

    #[test]
    fn a_channel_lies_beside_its_moderator_and_has_eighteen_signs() {
        let moderator = RouteName::four("org/ns/app/1").expect("a name");
        let (one, other) = (draw_channel(&moderator), draw_channel(&moderator));
        assert_ne!(one, other);
        let drawn = one.strip_prefix("org/ns/").expect("beside it");
        assert_eq!(drawn.len(), 18);
        assert!(drawn.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{drawn}");
    }

    #[test]
    fn a_route_is_named_as_operators_know_it() {
        let mut name = Subscription {
            component_0: "org".into(),
            component_1: "ns".into(),
            component_2: "example".into(),
            ..Subscription::default()
        };
        for (id, text) in [(None, "<nil>"), (Some(0), ""), (Some(5), "value:5")] {
            name.id = id;
            assert_eq!(route_text(&name, "slim/b"), format!("org/ns/example/{text}->slim/b"));
        }
    }
}
