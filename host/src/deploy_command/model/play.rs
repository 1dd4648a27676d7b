//! Performs a sequence of steps, and looks after each whether what is promised holds.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    rc::Rc,
    sync::LazyLock,
    time::Duration,
};

use jiff::Timestamp;
use tagship_core::{
    failpoint,
    handoff::{
        dir::Dir,
        fields::BootId,
        names::{self, RequestId},
        request::Request,
    },
    reference::Digest,
    signature::Attached,
};

use super::{
    Action, Form, Place, Plain, Run, Step, Thing, VERSIONS,
    asked::{Asked, AskedBy},
};
use crate::{
    config::Settings,
    deploy::ImageId,
    deploy_command::{self, Configuration},
    state_dir::StateDir,
    stop::Stop,
    testing::{IMAGE, Signer, World, digest, image_of, repository, settings, tag},
};

/// Keys and signatures, made once: they take longer than a whole sequence.
static RELEASED: LazyLock<Released> = LazyLock::new(|| {
    let (key, stranger) = (Signer::new(), Signer::new());
    let signed = |by: &Signer, version: usize, name: &str| {
        let annotations = [("tag", version_name(version)), ("repository", IMAGE.into())];
        let annotations = annotations.each_ref().map(|(name, value)| (*name, value.as_str()));
        by.layer(digest(name), &annotations)
    };
    let mut signatures = Vec::new();
    for version in 0..VERSIONS {
        let name = version_name(version);
        signatures.push((digest(&name), signed(&key, version, &name)));
        let foreign = format!("foreign {name}");
        signatures.push((digest(&foreign), signed(&stranger, version, &foreign)));
    }
    Released { settings: settings(&key, Path::new("/")), signatures, key, stranger }
});

struct Released {
    settings: Settings,
    signatures: Vec<(Digest, Attached)>,
    key: Signer,
    stranger: Signer,
}

fn signed(request: &Request, by: &Signer) -> String {
    let bytes = request.encode_signed(|message| Ok::<_, std::convert::Infallible>(by.sign(message)));
    String::from_utf8(bytes.unwrap()).unwrap()
}

/// What a killed companion unwinds with.
struct Crash;

/// The host, its directories, whoever asks, and what is to be expected.
pub(super) struct Model {
    pub(super) temp: tempfile::TempDir,
    pub(super) settings: Settings,
    pub(super) world: World,
    pub(super) dir: Dir,
    pub(super) asked: Vec<Asked>,
    /// What was asked for in the plain form; none for what is no tag.
    pub(super) plain: Vec<Plain>,
    /// Images that were sick at any time.
    pub(super) sick: BTreeSet<ImageId>,
    pub(super) troubles: usize,
    pub(super) registry_failed: bool,
    pub(super) engine_failed: bool,
    pub(super) strays: usize,
}

pub(super) fn version_name(version: usize) -> String {
    format!("v1.{version}.0")
}

pub(super) fn incumbent() -> ImageId {
    image_of(digest("by hand"))
}

/// Performs the steps, then an undisturbed run, and panics where something is not as promised.
pub(super) fn play(incumbent: bool, steps: &[Step]) {
    let model = Rc::new(RefCell::new(Model::new(incumbent)));
    for step in steps {
        match step {
            Step::Do(action) => model.borrow_mut().act(action),
            Step::Run(run) => perform(&model, run),
        }
        model.borrow_mut().look();
    }
    for up in [Action::Registry(false), Action::Engine(false), Action::Silence(false)] {
        model.borrow_mut().act(&up);
    }
    perform(&model, &Run::default());
    model.borrow_mut().end();
}

/// Runs the companion, and all that happens meanwhile.
fn perform(model: &Rc<RefCell<Model>>, run: &Run) {
    let (world, settings, state) = {
        let mut model = model.borrow_mut();
        model.asked.iter_mut().flat_map(|asked| &mut asked.files).for_each(|file| file.waits = true);
        // A new process was not told to stop.
        model.world.stop = Stop::default();
        (model.world.clone(), model.settings.clone(), model.state())
    };
    let mut meanwhile = run.meanwhile.clone();
    meanwhile.sort_by_key(|(at, _)| *at);
    let meanwhile = Rc::new(RefCell::new(VecDeque::from(meanwhile)));
    failpoint::watch({
        let (model, meanwhile, crash, mut place) = (model.clone(), meanwhile.clone(), run.crash, 0);
        move |_| {
            place += 1;
            while let Some((_, action)) = meanwhile.borrow_mut().pop_front_if(|(at, _)| *at <= place) {
                model.borrow_mut().act(&action);
            }
            if crash == Some(place) {
                model.borrow_mut().troubles += 1;
                panic::resume_unwind(Box::new(Crash));
            }
        }
    });
    let ended = panic::catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let load = || Ok(settings.clone());
        let configuration = Configuration { load: &load, fallback: settings.handoff.clone() };
        runtime.block_on(deploy_command::run(&world, &settings.app, &configuration, state)).unwrap();
    }));
    failpoint::unwatch();
    match ended {
        Ok(()) => model.borrow_mut().look_after_run(),
        Err(payload) if payload.is::<Crash>() => {}
        Err(payload) => panic::resume_unwind(payload),
    }
    let late: Vec<_> = meanwhile.take().into();
    late.iter().for_each(|(_, action)| model.borrow_mut().act(action));
}

impl Model {
    fn new(with_incumbent: bool) -> Self {
        // In memory where that can be had: nothing here is about power cuts, and syncs would take most of the time.
        let memory = Path::new("/dev/shm");
        let temp = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let handoff = temp.path().join("handoff");
        fs::create_dir(&handoff).unwrap();
        let world = World::default();
        {
            let mut state = world.state();
            state.pace = Duration::from_millis(60);
            for version in 0..VERSIONS {
                let name = version_name(version);
                state.tags.insert(tag(&name), digest(&name));
            }
            for (digest, signature) in &RELEASED.signatures {
                state.signatures.entry(*digest).or_default().push(signature.clone());
            }
            for service in RELEASED.settings.all_services().filter(|_| with_incumbent) {
                state.names.insert(format!("localhost/app:{service}"), incumbent());
                state.runs.insert(service.clone(), (incumbent(), 0));
            }
        }
        Self {
            settings: Settings { handoff: handoff.clone(), ..RELEASED.settings.clone() },
            dir: Dir::open(&handoff).unwrap(),
            temp,
            world,
            asked: Vec::new(),
            plain: Vec::new(),
            sick: BTreeSet::new(),
            troubles: 0,
            registry_failed: false,
            engine_failed: false,
            strays: 0,
        }
    }

    pub(super) fn state(&self) -> StateDir {
        StateDir::at(self.temp.path().join("state")).unwrap()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.settings.handoff.join(name)
    }

    fn act(&mut self, action: &Action) {
        self.look();
        match action {
            Action::Ask(form, version) => self.ask(*form, *version),
            Action::Again(which) => self.again(*which),
            Action::Withdraw(which) => self.withdraw(*which),
            Action::Name(which) => {
                let (name, Some(at)) = (self.stray(), self.pick(*which)) else { return };
                let text = format!("-\nRequest: {}\n", self.asked[at].id);
                self.put(at, Form::Broken, name, text);
            }
            Action::Plant(thing, place) => self.plant(*thing, *place),
            Action::Obstruct(thing, which) => {
                if let Some(asked) = self.pick(*which).map(|at| &self.asked[at])
                    && asked.answer.is_none()
                {
                    make(*thing, &self.path(&asked.id.status_name()));
                }
            }
            Action::Plain(plain) => {
                let text = match plain {
                    Plain::Version(version) => format!("{}\n", version_name(*version)),
                    Plain::Absent => "v9.9.9".to_owned(),
                    Plain::Nothing => "no tag".to_owned(),
                };
                self.dir.replace(names::TRIGGER, text.as_bytes()).unwrap();
                self.plain.push(*plain);
            }
            Action::Registry(down) => {
                self.registry_failed |= down;
                self.world.state().registry_down = *down;
            }
            Action::Engine(down) => {
                self.fail_engine(*down);
                self.world.state().engine_down = *down;
            }
            Action::Silence(silent) => {
                self.fail_engine(*silent);
                self.world.state().engine_silent = *silent;
            }
            Action::Sick(version, sick) => {
                let image = image_of(digest(&version_name(*version)));
                let mut state = self.world.state();
                if *sick {
                    self.sick.insert(image.clone());
                    state.sick.insert(image);
                } else {
                    state.sick.remove(&image);
                }
            }
            Action::Stop => {
                self.troubles += 1;
                self.world.stop.ask();
            }
        }
    }

    fn fail_engine(&mut self, failed: bool) {
        self.engine_failed |= failed;
        self.troubles += usize::from(failed);
    }

    fn pick(&self, which: usize) -> Option<usize> {
        which.checked_rem(self.asked.len())
    }

    /// A name like a request's, without an identifier.
    fn stray(&mut self) -> String {
        self.strays += 1;
        format!("deploy-request.{}", self.strays)
    }

    fn ask(&mut self, form: Form, version: usize) {
        let name = version_name(version);
        let id = RequestId::generate();
        let digest = match form {
            Form::Unsigned => digest(&format!("unsigned {name}")),
            Form::Foreign => digest(&format!("foreign {name}")),
            Form::OtherVersion => digest(&version_name((version + 1) % VERSIONS)),
            _ => digest(&name),
        };
        let request = Request {
            tag: tag(&name),
            id,
            image: if form == Form::OtherImage { format!("{IMAGE}2").parse().unwrap() } else { repository() },
            digest,
            commit: None,
            run: None,
            not_after: match form {
                Form::Late => Timestamp::UNIX_EPOCH,
                _ => Timestamp::now() + Duration::from_secs(60 * 60),
            },
            boot: match form {
                Form::OtherBoot => "ffffffff-0000-4000-8000-00000000000f".parse().unwrap(),
                _ => BootId::current().unwrap(),
            },
            rollback: matches!(form, Form::Back | Form::BackUnsigned | Form::BackForeign),
        };
        let text = match form {
            Form::Broken => format!("{name}\nRequest: {id}\n"),
            Form::Nameless | Form::Nobody => "?".to_owned(),
            Form::Back => signed(&request, &RELEASED.key),
            Form::BackForeign => signed(&request, &RELEASED.stranger),
            _ => String::from_utf8(request.encode()).unwrap(),
        };
        let file = match form {
            Form::Misnamed => RequestId::generate().request_name(),
            Form::Unnamed | Form::Nobody => self.stray(),
            _ => id.request_name(),
        };
        if form == Form::Nobody {
            self.dir.put(&file, text.as_bytes()).unwrap();
            return;
        }
        let at = self.expect(id, request.tag, image_of(digest));
        self.put(at, form, file, text);
    }

    /// Somebody will ask under this identifier.
    fn expect(&mut self, id: RequestId, tag: tagship_core::reference::Tag, image: ImageId) -> usize {
        // Who asks a companion that was told to stop is not spared that.
        let troubles = self.troubles - usize::from(self.world.stop.is_asked());
        let since = (self.world.state().moments.len(), troubles);
        self.asked.push(Asked { id, tag, image, files: Vec::new(), since, answer: None, outcome: None });
        self.asked.len() - 1
    }

    fn put(&mut self, at: usize, form: Form, name: String, text: String) {
        // The name may be taken: by what was put there before.
        let Ok(stamp) = self.dir.put(&name, text.as_bytes()) else { return };
        let file = AskedBy { form, name, text, stamp: Some(stamp), withdrawn: false, waits: false };
        self.asked[at].files.push(file);
    }

    fn again(&mut self, which: usize) {
        let Some(at) = self.pick(which) else { return };
        let first = self.asked[at].files.first().filter(|file| file.stamp.is_some());
        if let Some(AskedBy { form, name, text, .. }) = first {
            let (form, name, text) = (*form, name.clone(), text.clone());
            self.put(at, form, name, text);
        }
    }

    fn withdraw(&mut self, which: usize) {
        let Some(at) = self.pick(which) else { return };
        for file in &mut self.asked[at].files {
            if let (Some(stamp), false) = (&file.stamp, file.withdrawn) {
                file.withdrawn = self.dir.withdraw(&file.name, stamp).unwrap();
            }
        }
    }

    fn plant(&mut self, thing: Thing, place: Place) {
        match place {
            Place::Request => {
                let id = RequestId::generate();
                make(thing, &self.path(&id.request_name()));
                let at = self.expect(id, tag("v0.0.0"), incumbent());
                let name = id.request_name();
                let file = AskedBy {
                    form: Form::Thing,
                    name,
                    text: String::new(),
                    stamp: None,
                    withdrawn: false,
                    waits: false,
                };
                self.asked[at].files.push(file);
            }
            Place::Unnamed => {
                let name = self.stray();
                make(thing, &self.path(&name));
            }
            Place::Trigger if make(thing, &self.path(names::TRIGGER)) => self.plain.push(Plain::Nothing),
            Place::Trigger => {}
        }
    }
}

/// Puts something that is no file at a path. Whether the path was free.
fn make(thing: Thing, at: &Path) -> bool {
    let made = match thing {
        Thing::Fifo => {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mkfifoat(rustix::fs::CWD, at, mode).map_err(Into::into)
        }
        Thing::DanglingLink => std::os::unix::fs::symlink("/absent/really", at),
        Thing::EmptyDirectory => fs::create_dir(at),
        Thing::FullDirectory => fs::create_dir(at).and_then(|()| fs::create_dir(at.join("full"))),
    };
    made.is_ok()
}
