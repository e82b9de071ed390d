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
    assert_snapshot!(help("").await, @"");
}

#[tokio::test]
async fn tenant_verbs_are_listed() {
    assert_snapshot!(help("tenant").await, @"");
}

#[tokio::test]
async fn migrate_explains_its_promise() {
    assert_snapshot!(help("tenant migrate").await, @"");
}

#[tokio::test]
async fn every_verb_explains_itself_and_never_in_more_than_a_page() {
    let controller = Controller::start().await;
    let verbs = [
        ("server", &["list", "show", "invite", "remove"][..]),
        ("tenant", &["add", "remove", "list", "show", "migrate", "start", "stop", "password", "logs"]),
        ("volume", &["list", "export", "import", "verify"]),
        ("operation", &["list", "show", "watch", "cancel", "retry"]),
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
    assert_snapshot!(controller.run("tenant add Alice").await, @"");
    assert_snapshot!(controller.run("operation show op-1").await, @"");
    assert_snapshot!(controller.run("server invite nyc --ttl 8d").await, @"");
    assert_snapshot!(controller.run("tenant add Alice --output json").await, @"");
    assert_eq!(controller.calls(), "");
}

#[tokio::test]
async fn version_and_completions_need_no_controller() {
    let controller = Controller::start().await;
    assert_eq!(controller.run("version").await.stdout, format!("featherctl {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(controller.run("--version").await.stdout, format!("featherctl {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let ran = controller.run(&format!("completions {shell}")).await;
        assert_eq!(ran.code, Some(0));
        assert!(ran.stdout.contains("migrate"), "{shell}");
    }
    assert_eq!(controller.calls(), "");
}
