//! The hand-off as a whole against what it promises: random requests, withdrawals, plants, outages and crashes, with the
//! real companion over a host in memory.
//!
//! The steps and how they are drawn are here; `play` performs them, `look` requires what is promised, `asked` knows which
//! answers fit.

mod asked;
mod look;
mod play;

use proptest::prelude::*;

/// One step of a sequence.
#[derive(Debug, Clone)]
enum Step {
    /// Somebody does something while no companion runs.
    Do(Action),
    /// A companion runs.
    Run(Run),
}

/// One run of the companion. Places are failpoints and whatever is asked of the host, counted from 1.
#[derive(Debug, Clone, Default)]
struct Run {
    /// What others do meanwhile, and at which place.
    meanwhile: Vec<(usize, Action)>,
    /// The place at which the companion is killed.
    crash: Option<usize>,
}

/// What somebody other than the companion does. Numbers without a name pick one of the requests so far.
#[derive(Debug, Clone)]
enum Action {
    /// Asks for a version.
    Ask(Form, usize),
    /// Puts a request once more.
    Again(usize),
    /// Takes a request back, if it was not claimed.
    Withdraw(usize),
    /// Puts a bad file that names a request.
    Name(usize),
    /// Puts something that is no file at a request's name.
    Plant(Thing, Place),
    /// Puts something that is no file where a request's answer will be.
    Obstruct(Thing, usize),
    /// Asks in the plain form.
    Plain(Plain),
    /// The registry is down, or up again.
    Registry(bool),
    /// The engine is gone, or there again.
    Engine(bool),
    /// The engine knows of no container, or does again.
    Silence(bool),
    /// A version's containers do not get healthy, or do.
    Sick(usize, bool),
    /// The companion is told to stop.
    Stop,
}

/// What a full request is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// It may be deployed.
    Good,
    /// Its time has passed.
    Late,
    /// It was made for another boot.
    OtherBoot,
    /// It is for another app's image.
    OtherImage,
    /// Its image is not signed.
    Unsigned,
    /// Its image is signed by somebody else.
    Foreign,
    /// Its image is signed as another version.
    OtherVersion,
    /// It is to go back, and signed as that has to be.
    Back,
    /// It is to go back, and nobody has signed it.
    BackUnsigned,
    /// It is to go back, and somebody else has signed it.
    BackForeign,
    /// It cannot be read but for its `Request` line.
    Broken,
    /// It cannot be read, and only its file's name says who asks.
    Nameless,
    /// It is good, but its file has another request's name.
    Misnamed,
    /// It is good, but its file's name has no identifier.
    Unnamed,
    /// Nothing says who asks.
    Nobody,
    /// It is no file.
    Thing,
}

/// Something that is no file.
#[derive(Debug, Clone, Copy)]
enum Thing {
    Fifo,
    DanglingLink,
    EmptyDirectory,
    FullDirectory,
}

/// Where it is planted.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// At the name of a new request.
    Request,
    /// At a name like a request's without an identifier.
    Unnamed,
    /// At `deploy-trigger`.
    Trigger,
}

/// What is asked for in the plain form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plain {
    /// This version.
    Version(usize),
    /// A tag that names nothing.
    Absent,
    /// No tag.
    Nothing,
}

/// How many versions there are.
const VERSIONS: usize = 4;

fn forms() -> impl Strategy<Value = Form> {
    prop_oneof![
        12 => Just(Form::Good),
        1 => Just(Form::Late),
        1 => Just(Form::OtherBoot),
        1 => Just(Form::OtherImage),
        1 => Just(Form::Unsigned),
        1 => Just(Form::Foreign),
        1 => Just(Form::OtherVersion),
        3 => Just(Form::Back),
        1 => Just(Form::BackUnsigned),
        1 => Just(Form::BackForeign),
        1 => Just(Form::Broken),
        1 => Just(Form::Nameless),
        1 => Just(Form::Misnamed),
        1 => Just(Form::Unnamed),
        1 => Just(Form::Nobody),
    ]
}

fn things() -> impl Strategy<Value = Thing> {
    prop_oneof![Just(Thing::Fifo), Just(Thing::DanglingLink), Just(Thing::EmptyDirectory), Just(Thing::FullDirectory),]
}

fn actions() -> impl Strategy<Value = Action> {
    let places = prop_oneof![Just(Place::Request), Just(Place::Unnamed), Just(Place::Trigger)];
    let plain =
        prop_oneof![4 => (0..VERSIONS).prop_map(Plain::Version), 1 => Just(Plain::Absent), 1 => Just(Plain::Nothing)];
    prop_oneof![
        10 => (forms(), 0..VERSIONS).prop_map(|(form, version)| Action::Ask(form, version)),
        2 => (0..8_usize).prop_map(Action::Again),
        3 => (0..8_usize).prop_map(Action::Withdraw),
        1 => (0..8_usize).prop_map(Action::Name),
        1 => (things(), places).prop_map(|(thing, place)| Action::Plant(thing, place)),
        1 => (things(), 0..8_usize).prop_map(|(thing, which)| Action::Obstruct(thing, which)),
        2 => plain.prop_map(Action::Plain),
        1 => any::<bool>().prop_map(Action::Registry),
        1 => any::<bool>().prop_map(Action::Engine),
        1 => any::<bool>().prop_map(Action::Silence),
        2 => (0..VERSIONS, any::<bool>()).prop_map(|(version, sick)| Action::Sick(version, sick)),
        1 => Just(Action::Stop),
    ]
}

fn runs() -> impl Strategy<Value = Run> {
    // A deploy alone passes about a hundred places.
    let meanwhile = prop::collection::vec((1..160_usize, actions()), 0..4);
    (meanwhile, prop::option::weighted(0.6, 1..160_usize)).prop_map(|(meanwhile, crash)| Run { meanwhile, crash })
}

fn sequences() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![3 => actions().prop_map(Step::Do), 2 => runs().prop_map(Step::Run)];
    prop::collection::vec(step, 1..12)
}

/// More of them by `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => default,
        None => ProptestConfig { cases: 128, ..default },
    }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever comes, fails and is killed, in whatever order: each request has its own answer, once and unchanged, the
    /// answer is true, and in the end all services run one image that may run.
    ///
    /// What fails is made as short as it goes and printed. Its seed is kept in `host/proptest-regressions`, so that the
    /// next run of this test begins with it.
    #[test]
    fn every_request_is_answered_once_and_truly(incumbent in any::<bool>(), steps in sequences()) {
        play::play(incumbent, &steps);
    }
}

/// Found by the above: with the engine away, a run tells that what was interrupted will be ended later. Killed at any
/// place of that, it leaves one verdict, not two.
#[test]
fn killed_while_it_tells_that_it_will_be_ended_later() {
    let killed = |place| Step::Run(Run { crash: Some(place), ..Run::default() });
    let asked = || Step::Run(Run { meanwhile: vec![(3, Action::Ask(Form::Good, 0))], crash: None });
    for deploy in [20, 24, 30, 40] {
        for telling in 1..14 {
            play::play(false, &[asked(), killed(deploy), Step::Do(Action::Engine(true)), killed(telling)]);
        }
    }
}

/// Random steps rarely go back to what ran and ask for the newer version again, which is held then. A rollback by request
/// is killed at places of all its parts.
#[test]
fn killed_while_it_goes_back() {
    let ask = |form, version| Step::Do(Action::Ask(form, version));
    let run = |crash| Step::Run(Run { crash, ..Run::default() });
    for place in (1..120).step_by(7) {
        let back = [ask(Form::Good, 1), run(None), ask(Form::Good, 2), run(None), ask(Form::Back, 1), run(Some(place))];
        let again =
            [run(None), ask(Form::Good, 2), run(None), ask(Form::BackUnsigned, 1), run(None), ask(Form::Good, 3)];
        play::play(false, &[&back[..], &again].concat());
    }
}
