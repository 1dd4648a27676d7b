//! What is kept, and what is made of what others left there.

use tagship_core::explain::Explain;

use super::*;

/// A state directory for one test.
pub(crate) fn fresh() -> (tempfile::TempDir, StateDir) {
    let temp = tempfile::tempdir().unwrap();
    let state = StateDir::at(temp.path().join("deep/app")).unwrap();
    (temp, state)
}

#[test]
fn the_directory_is_for_its_owner_alone() {
    let (_temp, state) = fresh();
    assert_eq!(fs::metadata(&state.path).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn what_is_written_is_read_and_nothing_is_left_beside_it() {
    let (_temp, state) = fresh();
    assert_eq!(state.read_json::<Vec<u8>>("numbers").unwrap(), None);
    state.write_json("numbers", &[1, 2]).unwrap();
    state.write_json("numbers", &[3]).unwrap();
    assert_eq!(state.read_json::<Vec<u8>>("numbers").unwrap(), Some(vec![3]));
    assert_eq!(fs::read_dir(&state.path).unwrap().count(), 1);
}

#[test]
fn a_cut_file_is_damaged_not_absent() {
    let (_temp, state) = fresh();
    fs::write(state.file("numbers"), "[1, ").unwrap();
    assert_eq!(state.read_json::<Vec<u8>>("numbers").unwrap_err().kind(), "state-damaged");
}

#[test]
fn a_file_of_lines_loses_its_older_half_when_it_is_large() {
    let (_temp, state) = fresh();
    let line = |number: usize| format!("{number:0>1000}");
    let lines: String = (0..LARGEST as usize / 1001).map(|number| line(number) + "\n").collect();
    fs::write(state.file("lines"), &lines).unwrap();
    let last = lines.lines().count();
    for number in last..last + 2 {
        state.append("lines", &line(number)).unwrap();
    }
    let left = String::from_utf8(state.read("lines").unwrap().unwrap()).unwrap();
    assert!(left.len() as u64 <= LARGEST / 2 + 2048, "{}", left.len());
    assert!(left.lines().rev().zip((0..last + 2).rev()).all(|(kept, number)| kept == line(number)));
    assert!(left.lines().count() > 4000);
}

/// Nobody writes to it, nor reads from it: whoever opens it as a file waits for ever.
#[test]
fn a_pipe_in_a_files_place_is_refused_and_not_waited_for() {
    let (_temp, state) = fresh();
    for name in ["numbers", "lock"] {
        rustix::fs::mkfifoat(rustix::fs::CWD, state.file(name), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    }
    let tried = [
        state.read("numbers").map(drop),
        state.read_end("numbers").map(drop),
        state.append("numbers", "1"),
        state.lock().map(drop),
        state.try_lock().map(drop),
        state.is_locked().map(drop),
    ];
    for (at, tried) in tried.into_iter().enumerate() {
        let error = tried.expect_err("refused");
        assert!(matches!(error, StateError::NotAFile { .. }), "{at}: {error:?}");
        assert!(at < 3 || error.hint().unwrap().ends_with("it holds nothing, and is made anew"), "{error:?}");
    }
}

#[test]
fn an_endless_file_is_refused() {
    let (_temp, state) = fresh();
    File::create(state.file("numbers")).unwrap().set_len(LARGEST + 1).unwrap();
    assert!(matches!(state.read("numbers"), Err(StateError::TooLarge { .. })));
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let (_temp, state) = fresh();
    let largest = vec![b' '; LARGEST as usize];
    state.write("spaces", &largest).unwrap();
    let error = state.write("spaces", &[&largest[..], b" "].concat()).unwrap_err();
    assert!(error.kind() == "state-io" && error.hint().is_some(), "{error}");
    assert_eq!(state.read("spaces").unwrap().unwrap().len(), largest.len(), "what was there stays");
}

#[test]
fn only_one_holds_the_lock() {
    let (_temp, state) = fresh();
    let held = state.lock().unwrap();
    assert!(state.try_lock().unwrap().is_none());
    assert!(state.is_locked().unwrap());
    drop(held);
    assert!(!state.is_locked().unwrap());
    assert!(state.try_lock().unwrap().is_some());
}

#[test]
fn whoever_only_asks_keeps_nobody_from_the_lock() {
    let (_temp, state) = fresh();
    let (asks, _) = state.lock_file().unwrap();
    flock(&asks, FlockOperation::NonBlockingLockShared).unwrap();
    let mut asks = Some(asks);
    assert!(state.try_lock_with(|| drop(asks.take())).unwrap().is_some());
    let _held = state.lock().unwrap();
    let mut pauses = 0;
    assert!(state.try_lock_with(|| pauses += 1).unwrap().is_none());
    assert_eq!(pauses, QUESTIONS, "a deploy is not waited for");
}

#[test]
fn the_end_of_a_file_is_whole_lines() {
    let (_temp, state) = fresh();
    assert_eq!(state.read_end("lines").unwrap(), b"");
    for line in ["one", "two", "three"] {
        state.append("lines", line).unwrap();
    }
    assert_eq!(state.read_end("lines").unwrap(), b"one\ntwo\nthree\n");
    let end = |most| read_end(&state.file("lines"), most).unwrap();
    assert_eq!(end(14), b"one\ntwo\nthree\n");
    assert_eq!(end(13), b"two\nthree\n");
    assert_eq!(end(6), b"");
    assert_eq!(end(7), b"three\n");
}

#[test]
fn half_a_line_at_the_end_spoils_no_other() {
    let (_temp, state) = fresh();
    state.append("lines", "one").unwrap();
    fs::write(state.file("lines"), "one\ntw").unwrap();
    state.append("lines", "three").unwrap();
    assert_eq!(state.read("lines").unwrap().unwrap(), b"one\ntw\nthree\n");
}

#[test]
fn whether_another_app_is_at_work_is_known_and_ones_own_work_is_not_meant() {
    let temp = tempfile::tempdir().unwrap();
    let of = |app: &str| StateDir::at(temp.path().join(app)).unwrap();
    let (mine, other) = (of("mine"), of("other"));
    assert!(!mine.others_at_work());
    let own = mine.lock().unwrap();
    assert!(!mine.others_at_work() && other.others_at_work());
    drop(own);
    let theirs = other.lock().unwrap();
    assert!(mine.others_at_work());
    drop(theirs);
    assert!(!mine.others_at_work());
    // What is no app's directory is nobody's work.
    fs::write(temp.path().join("note.txt"), "").unwrap();
    assert!(!mine.others_at_work());
}
