use slim_wire::Name;

use super::port::Port;
use crate::policy::Principal;

/// What somebody does with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// To have what is for it.
    Subscribe,
    /// To send in it.
    Publish,
}

/// Something that the policy does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Who did it.
    pub principal: Principal,
    /// From where.
    pub peer: Box<str>,
    /// What.
    pub act: Act,
    /// With which name.
    pub name: Name,
    /// The name as logs show it, if its texts are known.
    pub label: Option<Box<str>>,
    /// Whether it was let pass.
    pub tolerated: bool,
}

impl Violation {
    pub(super) fn new(port: &Port, act: Act, name: Name, tolerated: bool) -> Self {
        let (principal, peer) = (port.principal().clone(), port.peer().into());
        Self { principal, peer, act, name, label: None, tolerated }
    }
}
