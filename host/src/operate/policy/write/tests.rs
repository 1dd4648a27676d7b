//! Writing, and undoing what was written, on file systems of a few files.

use std::os::unix::fs::chown;

use tagship_core::explain::{Explain, chain};

use super::{
    super::files::{
        POLICY, REGISTRIES,
        tests::{Machine, POLICY_TEXT},
    },
    *,
};

fn written(machine: &Machine) -> Undo {
    write(&machine.places, &machine.plan()).unwrap()
}

#[test]
fn a_users_first_files_are_his_own_and_the_systems_stay() {
    let machine = Machine::new(false);
    let before = machine.all();
    let plan = machine.plan();
    let undo = write(&machine.places, &plan).unwrap();
    let own = machine.places.own();
    assert_eq!(fs::read_to_string(machine.places.system.join(POLICY)).unwrap(), POLICY_TEXT);
    assert_eq!(fs::read_to_string(own.join(POLICY)).unwrap(), plan.policy.text);
    let link = fs::read_link(own.join(REGISTRIES).join("default.yaml")).unwrap();
    assert_eq!(link, machine.places.system.join(REGISTRIES).join("default.yaml"));
    assert_eq!(fs::metadata(own.join(REGISTRIES)).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(machine.plan().is_none(), "a second time there is nothing to do");
    undo.revert().unwrap();
    assert_eq!(machine.all(), before);
}

#[test]
fn root_writes_the_systems_unless_he_has_his_own() {
    let machine = Machine::new(true);
    let before = machine.all();
    let undo = written(&machine);
    assert!(fs::read_to_string(machine.places.system.join(POLICY)).unwrap().contains("sigstoreSigned"));
    assert!(!machine.places.own().join(POLICY).exists() && !machine.places.own().join(REGISTRIES).exists());
    undo.revert().unwrap();
    assert_eq!(machine.all(), before);
    fs::write(machine.places.own().join(POLICY), POLICY_TEXT).unwrap();
    let plan = machine.plan();
    assert_eq!(plan.policy.path, machine.places.own().join(POLICY), "it is what Podman reads");
    assert!(plan.attachments.path.starts_with(&machine.places.system));
}

#[test]
fn modes_and_links_are_kept() {
    let machine = Machine::new(false);
    let (own, elsewhere) = (machine.places.own(), machine.temp.path().join("dotfiles.json"));
    fs::write(&elsewhere, POLICY_TEXT).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o600)).unwrap();
    symlink(&elsewhere, own.join(POLICY)).unwrap();
    let undo = written(&machine);
    assert_eq!(fs::read_link(own.join(POLICY)).unwrap(), elsewhere);
    assert!(fs::read_to_string(&elsewhere).unwrap().contains("sigstoreSigned"));
    assert_eq!(fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777, 0o600);
    undo.revert().unwrap();
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), POLICY_TEXT);
}

#[test]
fn what_is_read_only_stays_as_it_is() {
    let machine = Machine::new(false);
    let (own, elsewhere) = (machine.places.own(), machine.temp.path().join("dotfiles.json"));
    fs::write(&elsewhere, POLICY_TEXT).unwrap();
    symlink(&elsewhere, own.join(POLICY)).unwrap();
    let mode = |mode| fs::set_permissions(&elsewhere, Permissions::from_mode(mode)).unwrap();
    mode(0o444);
    let before = machine.all();
    let error = write(&machine.places, &machine.plan()).unwrap_err();
    assert!(matches!(&error, PolicyError::ReadOnly { path } if *path == own.join(POLICY)), "{error}");
    assert!(error.is_configuration() && error.hint().unwrap().contains("chmod u+w"));
    assert_eq!(machine.all(), before);
    mode(0o644);
    written(&machine);
    mode(0o444);
    assert!(refuse_read_only(&machine.plan()).is_ok(), "nothing would be written");
}

#[test]
fn what_changed_meanwhile_is_left_alone() {
    let machine = Machine::new(false);
    fs::write(machine.places.own().join(POLICY), POLICY_TEXT).unwrap();
    let plan = machine.plan();
    fs::write(machine.places.own().join(POLICY), "{}").unwrap();
    let before = machine.all();
    assert!(matches!(write(&machine.places, &plan), Err(PolicyError::Changed { path }) if path.ends_with(POLICY)));
    assert_eq!(machine.all(), before);
    let machine = Machine::new(false);
    let plan = machine.plan();
    fs::write(machine.places.own().join(POLICY), POLICY_TEXT).unwrap();
    assert!(matches!(write(&machine.places, &plan), Err(PolicyError::Changed { .. })), "made meanwhile");
}

#[test]
fn a_source_that_changed_meanwhile_is_not_copied() {
    for name in [POLICY, "registries.d/default.yaml", "registries.d/new.yaml"] {
        let machine = Machine::new(false);
        let plan = machine.plan();
        let source = machine.places.system.join(name);
        fs::write(&source, POLICY_TEXT.replace("insecureAcceptAnything", "reject")).unwrap();
        let before = machine.all();
        let error = write(&machine.places, &plan).unwrap_err();
        assert!(matches!(&error, PolicyError::Changed { path } if *path == source), "{name}: {error}");
        assert_eq!(machine.all(), before);
    }
}

#[test]
fn each_file_is_read_again_right_before_it_is_replaced() {
    let machine = Machine::new(true);
    let plan = machine.plan();
    let mut undo = Undo::default();
    write_one(&plan.attachments, &mut undo, flush).unwrap();
    fs::write(machine.places.system.join(POLICY), "{}").unwrap();
    let error = write_one(&plan.policy, &mut undo, flush).unwrap_err();
    assert!(matches!(error, PolicyError::Changed { .. }), "{error}");
    undo.revert().unwrap();
    assert_eq!(fs::read_to_string(machine.places.system.join(POLICY)).unwrap(), "{}");
    assert!(!plan.attachments.path.exists());
}

#[test]
fn what_might_not_outlast_a_crash_is_taken_back() {
    let fails: [(bool, Flush); 4] = [
        (false, |at| if at.ends_with("containers") { Err(io::ErrorKind::Other.into()) } else { Ok(()) }),
        (false, |_| Err(io::ErrorKind::Other.into())),
        (true, |at| if at.ends_with(REGISTRIES) { Err(io::ErrorKind::Other.into()) } else { Ok(()) }),
        // The second file's, when the first is there for good.
        (true, |at| if at.ends_with("etc") { Err(io::ErrorKind::Other.into()) } else { Ok(()) }),
    ];
    for (is_root, fail) in fails {
        let machine = Machine::new(is_root);
        let before = machine.all();
        let error = write_with(&machine.places, &machine.plan(), fail).unwrap_err();
        assert!(matches!(error, PolicyError::Write { .. }), "{error}");
        assert_eq!(machine.all(), before);
    }
}

#[test]
fn what_somebody_changed_since_is_his_and_named() {
    let machine = Machine::new(false);
    let undo = written(&machine);
    let (policy, registries) = (machine.places.own().join(POLICY), machine.places.own().join(REGISTRIES));
    fs::write(&policy, "{}").unwrap();
    fs::write(registries.join("his.yaml"), "docker: {}\n").unwrap();
    let before = machine.all();
    let left = undo.revert().unwrap_err();
    assert!(left.contains(&format!("{}: somebody changed it", policy.display())), "{left}");
    assert!(left.contains(&format!("{}: somebody changed it", registries.display())), "{left}");
    assert_eq!(machine.all(), before);
}

#[test]
fn one_file_that_somebody_changed_does_not_keep_the_other() {
    let machine = Machine::new(true);
    let undo = written(&machine);
    fs::remove_file(machine.places.system.join(POLICY)).unwrap();
    let left = undo.revert().unwrap_err();
    assert!(left.contains(POLICY) && !left.contains(REGISTRIES), "{left}");
    assert_eq!(fs::read_dir(machine.places.system.join(REGISTRIES)).unwrap().count(), 1);
}

#[test]
fn what_is_back_already_needs_nothing() {
    let machine = Machine::new(true);
    let before = machine.all();
    let undo = written(&machine);
    fs::write(machine.places.system.join(POLICY), POLICY_TEXT).unwrap();
    undo.revert().unwrap();
    assert_eq!(machine.all(), before);
}

/// Only root can make files of others: elsewhere this shows that one's own stay one's own.
#[test]
fn a_file_stays_its_owners() {
    let machine = Machine::new(true);
    let (own, is_root) = (machine.places.own(), rustix::process::geteuid().is_root());
    fs::write(own.join(POLICY), POLICY_TEXT).unwrap();
    fs::create_dir(own.join(REGISTRIES)).unwrap();
    if is_root {
        chown(own.join(POLICY), Some(1234), Some(4321)).unwrap();
        chown(own.join(REGISTRIES), Some(1234), Some(4321)).unwrap();
    }
    let owner = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
    let plan = machine.plan();
    let before = (owner(&plan.policy.path), owner(&own.join(REGISTRIES)));
    let undo = written(&machine);
    assert_eq!((owner(&plan.policy.path), owner(&plan.attachments.path)), before);
    undo.revert().unwrap();
    assert_eq!(owner(&plan.policy.path), before.0);
}

#[test]
fn a_link_to_nothing_is_not_replaced() {
    let machine = Machine::new(true);
    let plan = machine.plan();
    symlink("/nonexistent", &plan.attachments.path).unwrap();
    let before = machine.all();
    let error = write(&machine.places, &plan).unwrap_err();
    assert!(chain(&error).contains("it is a link to what is not there"), "{error}");
    assert_eq!(error.kind(), "policy-write");
    assert_eq!(machine.all(), before);
}

#[test]
fn a_second_file_that_cannot_be_written_takes_the_first_back() {
    let machine = Machine::new(false);
    let mut plan = machine.plan();
    // A file where a directory has to be: no right of root's helps.
    fs::write(machine.temp.path().join("file"), "").unwrap();
    let before = machine.all();
    plan.policy.path = machine.temp.path().join("file/policy.json");
    plan.policy.from = None;
    assert!(matches!(write(&machine.places, &plan), Err(PolicyError::Write { .. } | PolicyError::Read { .. })));
    assert_eq!(machine.all(), before);
}
