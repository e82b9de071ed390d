//! What somebody reads who has never seen the project.

use insta::assert_snapshot;

use crate::controller::Controller;

async fn help(of: &str) -> String {
    let ran = Controller::start().await.run(&format!("{of} --help")).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    ran.stdout
}

#[tokio::test]
async fn the_first_page_says_what_this_is() {
    assert_snapshot!(help("").await, @r"
    Runs a fleet of Feather servers

    A tenant is one user's place: a work container with a home volume, a password and a web address.
    Tenants live on servers; the controller places them, and moves them with their data from one server
    to another.

    Usage: featherctl [OPTIONS] <COMMAND>

    Commands:
      status       Show the whole fleet on one screen, and what needs a person
      top          Show the fleet on a screen that keeps up, until you leave it
      explain      Say why a tenant or a server is as it is, what is pending, and what to type next
      doctor       Ask everybody, and say what does not work and what to type next
      server       The machines that tenants live on
      tenant       Users' work containers: add, look at, move, remove
      volume       Tenants' data: list, back up, restore, check
      image        What tenants run: look at, load, copy
      waitlist     Who would like a tenant: look at, invite, forget
      dns          Names in DNS: plan, apply, look at, restore
      cert         The certificate of the tenants' names: look at, renew
      warning      What needs a person: look at, take note of
      events       Show what happened in the fleet, the oldest first
      operation    Changes under way or done: look at, watch, cancel
      user         Who may look, who may change tenants, who may change the fleet
      login        Log in with a token from `featherctl user add`
      controller   The controller itself: copy its store
      audit        What was changed, and by whom: look at, check
      completions  Print a completion script for your shell
      version      Print featherctl's version, and the versions of the protocol that it speaks

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Global options:
          --output <FORMAT>         Form: table, wide or json [env: FEATHERCTL_OUTPUT] [default: table]
          --controller <HOST:PORT>  Where the controller listens; if there are several, all with commas
                                    [env: FEATHERCTL_CONTROLLER] [default: 127.0.0.1:7400]
          --identity <FILE>         Your certificate and key [default: ~/.config/feather/admin.identity]
                                    [env: FEATHERCTL_IDENTITY]
          --timeout <DURATION>      How long to wait for the controller [env: FEATHERCTL_TIMEOUT]
                                    [default: 60s]

    Examples:
      featherctl server invite fra                 a token that lets a new server join
      featherctl tenant add alice                  prints https://alice... | password: ...
      featherctl tenant migrate alice --to fra     moves alice with all data
      featherctl tenant list --output json         for scripts

    Exit codes: 0 done, 1 refused or failed, 2 usage, 3 controller or server unreachable, 70 a bug,
    130 interrupted.
    ");
}

#[tokio::test]
async fn tenant_verbs_are_listed() {
    assert_snapshot!(help("tenant").await, @r"
    Users' work containers: add, look at, move, remove

    Usage: featherctl tenant [OPTIONS] <COMMAND>

    Commands:
      add       Add a tenant, and print its address and password
      list      Show all tenants, and where they live
      show      Show everything about one tenant
      migrate   Move tenants with all their data to another server
      place     Say where placement may put a tenant from now on
      set       Say how much of its server a tenant may use
      recover   Bring back a tenant whose server is lost
      remove    Remove a tenant; its data is kept
      start     Start a stopped tenant
      stop      Stop a tenant
      restart   Restart a tenant; a changed API key of its server takes effect
      password  Set a new random password, and print it
      logs      Show what a tenant's container has printed

    Options:
      -h, --help  Print help

    Global options:
          --output <FORMAT>         Form: table, wide or json [env: FEATHERCTL_OUTPUT] [default: table]
          --controller <HOST:PORT>  Where the controller listens; if there are several, all with commas
                                    [env: FEATHERCTL_CONTROLLER] [default: 127.0.0.1:7400]
          --identity <FILE>         Your certificate and key [default: ~/.config/feather/admin.identity]
                                    [env: FEATHERCTL_IDENTITY]
          --timeout <DURATION>      How long to wait for the controller [env: FEATHERCTL_TIMEOUT]
                                    [default: 60s]
    ");
}

#[tokio::test]
async fn migrate_explains_its_promise() {
    assert_snapshot!(help("tenant migrate").await, @r"
    Move tenants with all their data to another server

    A tenant runs on while its data is copied; then its requests wait while the rest is. The data is
    proved identical on both sides before anything is switched; until then every failure puts the tenant
    back where it was. The copy on the old server is kept for a while: --undo moves back.

    Usage: featherctl tenant migrate [OPTIONS] [TENANT]...

    Arguments:
      [TENANT]...  Which tenants

    Options:
          --all-from <SERVER>        All that live on this server
          --to <SERVER>              Server to move to, instead of the one with most room
          --on <NAME=VALUE>          A label that the new server must have, as region=eu, beside those
                                     that the tenant was added with; may be given several times
          --undo                     Move back to the server it came from
          --parallel <COUNT>         Moves at once, of several [default: 2]
          --bwlimit <RATE>           Bytes per second to send at most for each move, as 20MiB; also
                                     while requests wait, which may take longer then
          --via <direct|controller>  Data goes from server to server, or through the controller if they
                                     do not reach each other [default: direct]
          --keep-source <DURATION>   How long the old server keeps its copy [default: 7d]
          --dry-run                  Only print what would move, what that takes, and what the new
                                     server has left then
          --wait                     Follow the operation to its end (this is the default)
          --no-wait                  Print the operation's id on stdout as soon as it is recorded, and
                                     leave it to itself
      -h, --help                     Print help

    Global options:
          --output <FORMAT>         Form: table, wide or json [env: FEATHERCTL_OUTPUT] [default: table]
          --controller <HOST:PORT>  Where the controller listens; if there are several, all with commas
                                    [env: FEATHERCTL_CONTROLLER] [default: 127.0.0.1:7400]
          --identity <FILE>         Your certificate and key [default: ~/.config/feather/admin.identity]
                                    [env: FEATHERCTL_IDENTITY]
          --timeout <DURATION>      How long to wait for the controller [env: FEATHERCTL_TIMEOUT]
                                    [default: 60s]
    ");
}

#[tokio::test]
async fn explain_names_both_ways_to_ask() {
    let controller = Controller::start().await;
    assert_snapshot!(controller.run("explain").await, @r"
    --- stderr
    error: the following required arguments were not provided:
      <TENANT|--server <SERVER>>

    Usage: featherctl explain [OPTIONS] <TENANT>
           featherctl explain [OPTIONS] --server <SERVER>

    For more information, try '--help'.
    --- exit 2
    ");
    let both = controller.run("explain alice --server nyc").await;
    assert_eq!(both.code, Some(2), "{both}");
}

#[tokio::test]
async fn every_verb_explains_itself_and_never_in_more_than_a_page() {
    let controller = Controller::start().await;
    let verbs = [
        (
            "server",
            &[
                "list", "show", "invite", "remove", "cordon", "uncordon", "label", "rename", "drain", "return",
                "retire", "lost",
            ][..],
        ),
        (
            "tenant",
            &[
                "add", "remove", "list", "show", "migrate", "place", "set", "recover", "start", "stop", "restart",
                "password", "logs",
            ],
        ),
        ("volume", &["list", "export", "import", "verify"]),
        ("operation", &["list", "show", "watch", "cancel", "retry"]),
        ("warning", &["list", "show", "ack"]),
        ("audit", &["list", "verify"]),
        ("user", &["list", "add", "revoke", "renew"]),
    ];
    for (noun, verbs) in verbs {
        for verb in verbs {
            let long = controller.run(&format!("{noun} {verb} --help")).await;
            let short = controller.run(&format!("{noun} {verb} -h")).await;
            assert_eq!(long.code, Some(0), "{noun} {verb}: {long}");
            assert_eq!(long.stdout, short.stdout);
            let lines: Vec<&str> = long.stdout.lines().collect();
            assert!(lines.len() <= 40 && lines.iter().all(|line| line.chars().count() <= 100), "{long}");
            assert!(lines[0].chars().next().is_some_and(char::is_uppercase), "{long}");
        }
    }
}

#[tokio::test]
async fn mistakes_in_the_command_line_exit_with_2() {
    let controller = Controller::start().await;
    for arguments in [
        "",
        "tenant",
        "tenant add",
        "tenant add Alice",
        "tenant add www",
        "tenant migrate alice --to fra --undo",
        "tenant migrate alice --keep-source 0d",
        "server invite nyc --ttl 8d",
        "operation show op-1",
        "tenant logs alice -n 0",
        "completions powershell",
        "--controller http://x tenant list",
        "--output yaml tenant list",
    ] {
        let ran = controller.run(arguments).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{arguments}: {ran}");
    }
    assert_snapshot!(controller.run("tenant add Alice").await, @r#"
    --- stderr
    error: invalid value 'Alice' for '<TENANT>': "Alice" is not a tenant name: use 1 to 20 of a-z, 0-9 and '-', beginning with a letter and not ending in '-'

    For more information, try '--help'.
    --- exit 2
    "#);
    assert_snapshot!(controller.run("operation show op-1").await, @r#"
    --- stderr
    error: invalid value 'op-1' for '<ID>': "op-1" is not an operation id; `featherctl operation list` shows them

    For more information, try '--help'.
    --- exit 2
    "#);
    assert_snapshot!(controller.run("server invite nyc --ttl 8d").await, @r"
    --- stderr
    error: invalid value '8d' for '--ttl <DURATION>': it must be between 1m and 7d

    For more information, try '--help'.
    --- exit 2
    ");
    assert_snapshot!(controller.run("tenant add Alice --output json").await, @r#"
    --- stderr
    {"error":{"code":"usage","reason":"USAGE","message":"invalid value 'Alice' for '<TENANT>': \"Alice\" is not a tenant name: use 1 to 20 of a-z, 0-9 and '-', beginning with a letter and not ending in '-'","hint":"`featherctl --help` shows what can be typed","exit_code":2,"metadata":{}}}
    --- exit 2
    "#);
    assert_eq!(controller.calls(), "");
}

#[tokio::test]
async fn version_and_completions_need_no_controller() {
    let controller = Controller::start().await;
    let protocol = feather_proto::version::OURS;
    let told = format!("featherctl {} (protocol {protocol})\n", env!("CARGO_PKG_VERSION"));
    for asked in ["version", "--version", "-V"] {
        assert_eq!(controller.run(asked).await.stdout, told);
    }
    for shell in ["bash", "zsh", "fish"] {
        let ran = controller.run(&format!("completions {shell}")).await;
        assert_eq!(ran.code, Some(0));
        assert!(ran.stdout.contains("migrate"), "{shell}");
    }
    assert_eq!(controller.calls(), "");
}
