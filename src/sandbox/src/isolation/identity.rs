//! Who a process is and what it may ask of the kernel.

use std::collections::HashSet;

use caps::{CapSet, Capability};
use nix::{
    sys::prctl,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use crate::{
    plan::{Failure, On as _, Plan},
    sys,
    tree::Owner,
};

/// No program it executes can bring a capability back. Without the right to say so (an ordinary user
/// outside a user namespace) there is nothing to bring back either.
pub(super) fn bound(_: &Plan) -> Result<(), Failure> {
    if !may(Capability::CAP_SETPCAP) {
        return Ok(());
    }
    sys::drop_bounding_set().on("bounding set")?;
    sys::lock_securebits().on("securebits")
}

pub(super) fn become_owner(plan: &Plan) -> Result<(), Failure> {
    plan.owner.map_or(Ok(()), become_user)
}

pub(super) fn clear(_: &Plan) -> Result<(), Failure> {
    hold_only(&[])
}

pub(super) fn no_new_privileges(_: &Plan) -> Result<(), Failure> {
    prctl::set_no_new_privs().on("prctl")
}

fn may(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

fn become_user(owner: Owner) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    setgroups(&[]).on("groups")?;
    setresgid(gid, gid, gid).on(format!("gid {gid}"))?;
    setresuid(uid, uid, uid).on(format!("uid {uid}"))
}

fn hold_only(capabilities: &[Capability]) -> Result<(), Failure> {
    let none = HashSet::new();
    let some: HashSet<Capability> = capabilities.iter().copied().collect();
    for (set, value) in [
        (CapSet::Ambient, &none),
        (CapSet::Inheritable, &none),
        (CapSet::Effective, &some),
        (CapSet::Permitted, &some),
    ] {
        caps::set(None, set, value)
            .map_err(std::io::Error::other)
            .on(format!("{set:?} set"))?;
    }
    Ok(())
}

/// What init keeps once the service is on its way: a user of its own, and the right to end processes
/// of other users. It is not to be looked into.
pub(crate) fn become_keeper(plan: &Plan) -> Result<(), Failure> {
    prctl::set_dumpable(false).on("prctl")?;
    if plan.mode.fenced() {
        // It works through open descriptors from here on.
        nix::unistd::chroot(&plan.dir).at(&plan.dir)?;
        nix::unistd::chdir("/").at("/")?;
    }
    match plan.keeper {
        Some(keeper) => {
            prctl::set_keepcaps(true).on("prctl")?;
            sys::drop_bounding_set().on("bounding set")?;
            become_user(keeper)?;
            hold_only(&[Capability::CAP_KILL])?;
        }
        None => hold_only(&[])?,
    }
    prctl::set_no_new_privs().on("prctl")?;
    // Changing the user does not change it, but some kernels reset it; it must hold.
    prctl::set_dumpable(false).on("prctl")
}
