//! The shape of the project itself: who may name what, and that papers and code say the same.
//!
//! Reads sources as text and runs nothing. A rule that fails names the file; what to do about it is in `ARCHITECTURE.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A source file: its path from the root, with forward slashes, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines that are not wholly a comment, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_under(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let hidden = path.file_name().unwrap().to_str().unwrap().starts_with('.');
        if hidden || path.ends_with("target") {
            continue;
        }
        if path.is_dir() {
            walk(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
            found.push(Source { path: relative, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

/// All files of the project with this extension.
fn sources(extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root(), extension, &mut found);
    assert!(found.len() > 2, "the project's .{extension} files were not found");
    found
}

fn none_of(violations: &[String], rule: &str) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Does this line name this crate or module: `name::...`, `use name`, `name::{`, `{self, name}`?
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + name.len()..];
        let whole = !before.is_some_and(is_word) && !after.chars().next().is_some_and(is_word);
        let path = after.starts_with("::") || line[..at].trim_end().ends_with("::") || line[..at].ends_with("use ");
        whole && path
    })
}

/// Who may name what. A name that is missing here may be used anywhere.
const BOUNDARIES: &[(&str, &[&str])] = &[
    // The container engine, the proxy and the database each have one place that knows them.
    ("bollard", &["agent/src/runtime/podman"]),
    ("reqwest", &["agent/src/runtime/podman", "agent/src/router/caddy", "tests/"]),
    ("sqlx", &["controller/src/store"]),
    ("hickory_resolver", &["controller/src/dns/authority.rs"]),
    // The internet is reached through one client. The DNS server is a test's.
    ("hyper_rustls", &["controller/src/https.rs"]),
    ("rustls_native_certs", &["controller/src/https.rs"]),
    ("hickory_server", &["tests/"]),
    ("instant_acme", &["controller/src/certificate"]),
    // Certificates are issued in one place; the others make signing requests, or a fleet or a certificate for a test.
    (
        "rcgen",
        &[
            "controller/src/ca.rs",
            "proto/src/tls/identity.rs",
            "proto/src/tls/public.rs",
            // Their tests.
            "proto/src/tls/serve.rs",
            "agent/src/certificate.rs",
            "agent/src/tests/",
            "cli/tests/",
            "tests/",
        ],
    ),
    // System calls on descriptors: the volume engine, the disk's free space, and their tests.
    // The local socket compares its caller's user with its own.
    // A backup in a folder is on disk before it is called one.
    // Whether somebody still comes to a forward is seen by inotify.
    (
        "rustix",
        &[
            "agent/src/volume",
            "agent/src/runtime",
            "agent/src/router/caddy/traffic.rs",
            "agent/src/api/local.rs",
            "agent/src/tests/",
            "controller/src/backups/repository.rs",
            "tests/",
        ],
    ),
    ("object_store", &["controller/src/backups/"]),
    // What people see while they wait.
    ("indicatif", &["cli/src/output/progress.rs"]),
    ("ratatui", &["cli/src/top/draw.rs", "cli/src/output/screen.rs"]),
    ("crossterm", &["cli/src/output/screen.rs"]),
    // `tenant.sh` is typed as well; its tests type it.
    (
        "clap",
        &[
            "cli/src/",
            "agent/src/main.rs",
            "agent/src/arguments.rs",
            "agent/src/local/client.rs",
            "agent/src/tests/local.rs",
            "controller/src/main.rs",
            "tests/src/bin/feather-sim.rs",
            "tests/src/bin/feather-record.rs",
            "tests/src/bin/fake-dynadot.rs",
        ],
    ),
    // Generated code is spoken where messages are decoded and encoded, nowhere else.
    // What an earlier release sent is known by its schema alone.
    ("prost", &["proto/", "tests/src/recorded"]),
    (
        "pb",
        &[
            "proto/src/",
            "agent/src/api",
            "agent/src/fenced/ask.rs",
            "agent/src/join.rs",
            "agent/src/local/",
            "agent/src/peer.rs",
            "agent/src/renew.rs",
            "agent/src/volume/wire.rs",
            "agent/src/volume/tests/wire.rs",
            "agent/src/tests/",
            "controller/src/api",
            "controller/src/agents/grpc.rs",
            // Sees what the services show.
            "controller/src/web/look.rs",
            // Registers the services.
            "controller/src/lib.rs",
            "cli/src/commands",
            "cli/src/connect.rs",
            "cli/src/follow.rs",
            "cli/src/outcome.rs",
            "cli/src/view",
            // Its tests make what a controller would answer.
            "cli/src/top",
            "cli/tests/",
            "tests/",
        ],
    ),
];

/// Whoever reads all tenants asks for those that have changed: a statement that does not say so would hide what it writes.
#[test]
fn whatever_writes_tenants_says_that_they_changed() {
    let mut writes = 0;
    let mut silent = Vec::new();
    let store = ["controller/src/store/tests"];
    for source in
        sources("rs").iter().filter(|one| one.path.starts_with("controller/src/store") && !one.is_under(&store))
    {
        for (verb, end) in [("INSERT INTO tenants ", ")"), ("UPDATE tenants ", " WHERE ")] {
            for (_, statement) in source.text.match_indices(verb).map(|(at, _)| source.text[at..].split_at(verb.len()))
            {
                writes += 1;
                let said = statement.split(end).next().unwrap_or_default();
                if !said.contains("changed") {
                    silent.push(format!("{}: {verb}{said}", source.path));
                }
            }
        }
    }
    assert!(writes >= 6, "only {writes} statements were found");
    none_of(&silent, "a statement writes tenants and leaves `changed` as it was");
}

#[test]
fn each_outside_thing_is_named_only_where_it_belongs() {
    let mut violations = Vec::new();
    for source in sources("rs") {
        for (name, places) in BOUNDARIES.iter().filter(|(_, places)| !source.is_under(places)) {
            let named = source.code().find(|(_, line)| names(line, name));
            violations.extend(
                named.map(|(line, _)| format!("{}:{} names {name}; only {places:?} may", source.path, line + 1)),
            );
        }
    }
    none_of(&violations, "a name is used outside of its place (if it must be, widen BOUNDARIES and say why)");
}

#[test]
fn every_boundary_is_still_about_something() {
    let all = sources("rs");
    let used = |name: &str, place: &str| {
        all.iter().any(|source| source.path.starts_with(place) && source.code().any(|(_, line)| names(line, name)))
    };
    let idle: Vec<_> = BOUNDARIES
        .iter()
        .flat_map(|(name, places)| places.iter().map(move |place| (*name, *place)))
        // Tests come and go.
        .filter(|(name, place)| !place.contains("tests/") && !used(name, place))
        .map(|(name, place)| format!("{place} does not name {name} any more"))
        .collect();
    none_of(&idle, "these exceptions can go");
}

#[test]
fn statuses_are_made_in_one_place() {
    const MADE: &[&str] = &["Status::new(", "Status::with_details", "Status::internal(", "Status::invalid_argument("];
    let violations: Vec<_> = sources("rs")
        .iter()
        .filter(|source| !source.is_under(&["proto/src/error.rs", "cli/tests/", "tests/", "agent/src/tests/"]))
        .filter(|source| source.code().any(|(_, line)| MADE.iter().any(|made| line.contains(made))))
        .map(|source| source.path.clone())
        .collect();
    none_of(&violations, "only proto/src/error.rs turns an error into a gRPC status");
}

#[test]
fn the_product_starts_no_processes() {
    let violations: Vec<_> = sources("rs")
        .iter()
        .filter(|source| source.is_under(&["agent/src/", "controller/src/", "cli/src/", "proto/src/"]))
        .filter(|source| !source.path.contains("/tests/") && !source.path.ends_with("/contract.rs"))
        // Runs the command that an operator gave for a Caddy that answers nobody any more: then there is no socket to speak to.
        .filter(|source| source.path != "agent/src/router/caddy/restart.rs")
        .filter(|source| {
            source.code().any(|(_, line)| line.contains("process::Command") || line.contains("Command::new(\""))
        })
        .map(|source| source.path.clone())
        .collect();
    none_of(&violations, "Podman and Caddy are spoken to over their sockets");
}

/// The project's own crates that a manifest names in any of its tables of dependencies.
fn own_dependencies(manifest: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && line.starts_with("feather") {
            found.insert(
                line.split(|character: char| !is_word(character) && character != '-').next().unwrap().to_owned(),
            );
        }
    }
    found
}

#[test]
fn agent_controller_and_cli_know_nothing_of_each_other() {
    let wanted: [(&str, &[&str]); 5] = [
        ("proto/Cargo.toml", &[]),
        ("agent/Cargo.toml", &["feather-proto"]),
        ("controller/Cargo.toml", &["feather-proto"]),
        ("cli/Cargo.toml", &["feather-proto"]),
        ("tests/Cargo.toml", &["feather-agent", "feather-controller", "feather-proto"]),
    ];
    for (manifest, dependencies) in wanted {
        assert_eq!(own_dependencies(manifest), dependencies.iter().map(ToString::to_string).collect(), "{manifest}");
    }
}

#[test]
fn every_module_says_what_it_owns() {
    // A `tests.rs` is part of the file beside it, whose doc speaks for both.
    let violations: Vec<_> = sources("rs")
        .iter()
        .filter(|source| !source.path.ends_with("/tests.rs") && !source.text.starts_with("//! "))
        .map(|source| source.path.clone())
        .collect();
    none_of(&violations, "these files do not begin with a module doc");
}

#[test]
fn no_file_grows_without_end() {
    const LINES_MAX: usize = 700;
    let violations: Vec<_> = sources("rs")
        .iter()
        .map(|source| (source.path.clone(), source.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    none_of(&violations, "part these files by what they own; about 500 lines is the aim");
}

#[test]
fn no_test_is_switched_off() {
    let ignored = concat!("#[", "ignore");
    let conditional = concat!(", ", "ignore)]");
    let violations: Vec<_> = sources("rs")
        .iter()
        .flat_map(|source| {
            source.code().map(move |(line, text)| (format!("{}:{}", source.path, line + 1), text.to_owned()))
        })
        .filter(|(_, text)| text.contains(ignored) || text.contains(conditional))
        .map(|(place, _)| place)
        .collect();
    none_of(&violations, "a test that cannot pass pins today's behaviour instead");
}

#[test]
fn every_service_and_rpc_is_documented_in_the_schema() {
    let mut violations = Vec::new();
    for source in sources("proto") {
        let lines: Vec<_> = source.text.lines().map(str::trim).collect();
        for (number, line) in
            lines.iter().enumerate().filter(|(_, line)| line.starts_with("rpc ") || line.starts_with("service "))
        {
            if number == 0 || !lines[number - 1].starts_with("//") {
                violations.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    none_of(&violations, "comments of the schema are the reference of the API");
}

/// What stands in a Markdown file as code: the lines of fenced blocks, and inline spans, which may be broken over lines.
fn code_of(markdown: &str) -> Vec<String> {
    let (mut fenced, mut paragraph, mut found) = (false, String::new(), Vec::new());
    for line in markdown.lines().chain([""]) {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        if fence || fenced || line.is_empty() {
            found.extend(paragraph.split('`').skip(1).step_by(2).map(ToOwned::to_owned));
            paragraph.clear();
            found.extend((fenced && !fence).then(|| line.to_owned()));
        } else {
            paragraph.push_str(line);
            paragraph.push(' ');
        }
    }
    found
}

/// The words behind each place where `command` stands as a word.
fn calls<'a>(text: &'a str, command: &'a str) -> impl Iterator<Item = Vec<&'a str>> {
    text.match_indices(command)
        .filter(move |(at, _)| {
            !text[..*at].chars().next_back().is_some_and(|before| is_word(before) || "/-.:".contains(before))
        })
        .map(move |(at, _)| &text[at + command.len()..])
        .filter(|rest| rest.starts_with(' '))
        .map(|rest| rest.split_whitespace().take(2).map(|word| word.trim_end_matches(is_punctuation)).collect())
}

fn is_punctuation(character: char) -> bool {
    "`,;.:)\"\\".contains(character)
}

/// The nouns of featherctl with their verbs, from the tree of files; a command without verbs has none.
fn command_tree() -> BTreeMap<String, BTreeSet<String>> {
    let mut tree: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources("rs").iter().filter(|source| source.path.starts_with("cli/src/commands/")) {
        let path = source.path.trim_start_matches("cli/src/commands/").trim_end_matches(".rs");
        match path.split_once('/') {
            // A verb with a folder of its own is one verb.
            Some((_, part)) if part.contains('/') => {}
            Some((noun, verb)) => drop(tree.entry(noun.to_owned()).or_default().insert(verb.to_owned())),
            None => drop(tree.entry(path.to_owned()).or_default()),
        }
    }
    assert!(tree["tenant"].contains("migrate"), "the commands are not where they were");
    tree
}

/// Why `featherctl WORDS` is no command, if so. Placeholders and options say nothing.
fn unknown_command(words: &[&str], tree: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let plain = |word: &&&str| {
        !word.is_empty() && word.chars().all(|character| character.is_ascii_lowercase() || character == '|')
    };
    let noun = words.first().filter(plain)?;
    let Some(verbs) = tree.get(*noun) else { return Some(format!("featherctl {noun}")) };
    let verb = words.get(1).filter(plain).filter(|_| !verbs.is_empty())?;
    verb.split('|').find(|verb| !verbs.contains(*verb)).map(|verb| format!("featherctl {noun} {verb}"))
}

#[test]
fn every_command_that_is_written_anywhere_exists() {
    let tree = command_tree();
    let mut violations = Vec::new();
    let mut check = |path: &str, text: &str| {
        let unknown = calls(text, "featherctl").filter_map(|words| unknown_command(&words, &tree));
        violations.extend(unknown.map(|command| format!("{path}: {command}")));
    };
    for source in sources("md") {
        code_of(&source.text).iter().for_each(|code| check(&source.path, code));
    }
    // In code and schema only what is quoted as a command is meant as one.
    for source in sources("rs").iter().chain(&sources("proto")) {
        source
            .text
            .lines()
            .for_each(|line| line.split('`').skip(1).step_by(2).for_each(|quoted| check(&source.path, quoted)));
    }
    none_of(&violations, "these commands do not exist");
}

#[test]
fn every_command_is_in_the_reference() {
    let reference = code_of(&fs::read_to_string(root().join("docs/cli.md")).unwrap());
    let missing: Vec<_> = command_tree()
        .into_iter()
        .flat_map(|(noun, verbs)| {
            if verbs.is_empty() { vec![noun] } else { verbs.iter().map(|verb| format!("{noun} {verb}")).collect() }
        })
        .filter(|command| !reference.iter().any(|code| code == command || code.starts_with(&format!("{command} "))))
        .collect();
    none_of(&missing, "docs/cli.md lacks these commands");
}

#[test]
fn every_make_target_that_is_written_anywhere_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let targets: BTreeSet<_> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', ' ', '#', '.']))
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target)
        .collect();
    assert!(targets.contains("demo"), "the Makefile was not understood");
    let mut unknown = Vec::new();
    for source in sources("md") {
        for code in code_of(&source.text) {
            let missing = calls(&code, "make")
                .filter_map(|words| words.first().copied())
                .filter(|target| !targets.contains(target) && !target.contains('='))
                .map(|target| format!("{}: make {target}", source.path));
            unknown.extend(missing);
        }
    }
    none_of(&unknown, "these targets do not exist");
}

/// Does this look like a path of ours, rather than one on a server or a fragment of code?
fn is_path(code: &str) -> bool {
    const TOPS: &[&str] = &["proto/", "agent/", "controller/", "cli/", "tests/", "birth/", "scripts/", "docs/", ".ci/"];
    TOPS.iter().any(|top| code.starts_with(top))
        && code.chars().all(|character| is_word(character) || "./-".contains(character))
}

#[test]
fn every_path_in_the_papers_exists() {
    let missing: Vec<_> = sources("md")
        .iter()
        .flat_map(|source| {
            let paths = code_of(&source.text)
                .into_iter()
                .filter_map(|code| code.split_whitespace().next().map(ToOwned::to_owned));
            paths.filter(|path| is_path(path)).map(|path| (source.path.clone(), path)).collect::<Vec<_>>()
        })
        .filter(|(_, path)| !root().join(path).exists())
        .map(|(paper, path)| format!("{paper}: {path}"))
        .collect();
    none_of(&missing, "these paths do not exist");
}

#[test]
fn the_map_of_the_code_shows_every_folder_and_every_top_level_module() {
    let map = code_of(&fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap());
    let named = |path: &str| map.iter().any(|code| code.trim_end_matches('/') == path);
    let wanted = |path: &str| {
        let parts: Vec<_> = path.split('/').collect();
        // A package's modules; what lies deeper is shown by its folder.
        parts.len() == 3 && parts[1] == "src" && !["lib.rs", "main.rs", "tests.rs"].contains(&parts[2])
    };
    let missing: Vec<_> =
        sources("rs").into_iter().map(|source| source.path).filter(|path| wanted(path) && !named(path)).collect();
    none_of(&missing, "ARCHITECTURE.md does not show these files");
}

#[test]
fn what_looks_for_violations_finds_them() {
    for (line, found) in [
        ("use sample::Row;", true),
        ("use sample;", true),
        ("let pool = sample::query(text);", true),
        ("fn by(pool: &my::sample) {", true),
        ("let mysample::Row = 1;", false),
        ("EnvFilter::new(\"info,sample=warn\")", false),
    ] {
        assert_eq!(names(line, "sample"), found, "{line}");
    }
    let tree = command_tree();
    let unknown = |text| calls(text, "featherctl").find_map(|words| unknown_command(&words, &tree));
    assert_eq!(unknown("$ featherctl tenant fly alice").as_deref(), Some("featherctl tenant fly"));
    assert_eq!(unknown("featherctl tennant list").as_deref(), Some("featherctl tennant"));
    assert_eq!(unknown("featherctl volume export|inport x").as_deref(), Some("featherctl volume inport"));
    for fine in [
        "featherctl tenant add alice",
        "featherctl version.",
        "featherctl NOUN VERB",
        "featherctl --help",
        "my-featherctl x",
    ] {
        assert_eq!(unknown(fine), None, "{fine}");
    }
}
