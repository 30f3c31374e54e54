//! Which system calls a sandboxed program may make. The rules are data (`seccomp/table.rs`), each with
//! its reason; here they become the kernel's filter programs.
//!
//! It is a deny list with a bound: calls newer than the table was reviewed for do not exist inside, nor
//! does the x32 table, and a program of another architecture is killed. Capabilities are gone before,
//! so the list is the second fence for privileged calls and the first for what needs no privilege.

mod table;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::{spec::SpecKind, sys};
use table::{Answer, Test};

/// Why no filter could be made; a mistake in the table, found by its test.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the system call filter: {0}")]
pub(crate) struct Error(String);

impl From<seccompiler::BackendError> for Error {
    fn from(error: seccompiler::BackendError) -> Self {
        Self(error.to_string())
    }
}

/// Whether this kernel can filter at all.
pub(crate) fn available() -> bool {
    sys::seccomp_available()
}

/// The programs to install, in order. One for each answer, because a program has only one.
pub(crate) fn programs(kind: SpecKind) -> Result<Vec<BpfProgram>, Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut by_answer: BTreeMap<Answer, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    for row in table::rows() {
        if kind == SpecKind::Build && row.builds_may {
            continue;
        }
        let rules = by_answer
            .entry(row.answer)
            .or_default()
            .entry(row.call)
            .or_default();
        if let Some(tests) = row.when {
            rules.push(SeccompRule::new(
                tests.iter().map(condition).collect::<Result<_, _>>()?,
            )?);
        }
    }
    let mut programs = Vec::new();
    for (answer, rules) in by_answer {
        let deny = SeccompAction::Errno(answer.errno().unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny, arch)?;
        programs.push(filter.try_into()?);
    }
    programs.push(bound());
    Ok(programs)
}

/// Installs the programs; nothing that they refuse can be done after.
pub(crate) fn install(programs: &[BpfProgram]) -> std::io::Result<()> {
    programs
        .iter()
        .try_for_each(|program| sys::seccomp_install(program))
}

fn condition(test: &Test) -> Result<SeccompCondition, Error> {
    let (argument, operation, value) = match *test {
        Test::Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
        Test::IsNot(argument, value) => (argument, SeccompCmpOp::Ne, value),
        Test::Has(argument, bits) => (argument, SeccompCmpOp::MaskedEq(bits), bits),
    };
    let width = SeccompCmpArgLen::Dword;
    Ok(SeccompCondition::new(argument, width, operation, value)?)
}

/// Calls above the newest reviewed number do not exist. x32 numbers have a high bit and fall under it.
fn bound() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const NUMBER_OFFSET: u32 = 0; // of `nr` in struct seccomp_data
    let line = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let missing = libc::SECCOMP_RET_ERRNO | Answer::Missing.errno().unsigned_abs();
    vec![
        line(LOAD_WORD, 0, 0, NUMBER_OFFSET),
        line(JUMP_IF_GREATER, 0, 1, table::NEWEST_REVIEWED),
        line(RETURN, 0, 0, missing),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_compiles_and_stays_small() {
        for kind in [SpecKind::Service, SpecKind::Build] {
            let programs = programs(kind).unwrap();
            let lines: usize = programs.iter().map(Vec::len).sum();
            assert!(lines < 600, "{kind:?} has {lines} instructions");
        }
    }

    #[test]
    fn no_call_is_listed_twice_without_a_condition() {
        let mut seen = BTreeMap::new();
        for row in table::rows() {
            if row.when.is_none() {
                assert_eq!(seen.insert(row.call, row.why), None, "call {}", row.call);
            }
            assert!(!row.why.is_empty());
        }
    }
}
