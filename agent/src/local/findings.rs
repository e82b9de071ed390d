//! What `tenant.sh adopt` prints: a table, and under it what there is to say about single names. Pure.

use feather_proto::adoption::{Action, Finding};

use super::{client::Adopt, text::columns};

/// What was found, what became of it, and what to type next.
pub(super) fn told(findings: &[Finding], problems: &[String], asked: Adopt) -> String {
    let mut text = String::new();
    if !findings.is_empty() {
        let header = ["USERNAME", "FOUND", "PORT", "CONTAINER", "ACTION"].map(ToOwned::to_owned);
        text.push_str(&columns(&std::iter::once(header).chain(findings.iter().map(row)).collect::<Vec<_>>()));
    }
    let remarks: Vec<_> = findings.iter().flat_map(remarks).chain(problems.iter().cloned()).collect();
    if !remarks.is_empty() {
        text.push_str(&format!("\n{}\n", remarks.join("\n")));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&summary(findings, asked));
    text.push('\n');
    text
}

fn row(finding: &Finding) -> [String; 5] {
    let places = [
        (finding.listed, "file"),
        (finding.container, "container"),
        (finding.volume, "volume"),
        (finding.routed, "route"),
    ];
    let found: Vec<_> = places.iter().filter(|(there, _)| *there).map(|(_, place)| *place).collect();
    let container = match (finding.container, finding.running, finding.host_network) {
        (false, ..) => "-",
        (_, true, false) => "running",
        (_, true, true) => "running, host network",
        (_, false, _) => "stopped",
    };
    let port = finding.port.map_or_else(|| "-".to_owned(), |port| port.to_string());
    [finding.name.clone(), found.join(" "), port, container.to_owned(), action(finding.action).to_owned()]
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Adopt => "adopt",
        Action::Adopted => "adopted",
        Action::Known => "known",
        Action::Keep => "keep",
        Action::Misfit => "misfit",
    }
}

fn remarks(finding: &Finding) -> Vec<String> {
    let name = &finding.name;
    let kept = (finding.action == Action::Keep)
        .then(|| format!("only a volume; it stays, and `tenant.sh add {name}` finds it under a new password"));
    finding.why.iter().chain(&kept).chain(&finding.notes).map(|remark| format!("{name}: {remark}")).collect()
}

fn summary(findings: &[Finding], asked: Adopt) -> String {
    let count = |wanted: Action| findings.iter().filter(|finding| finding.action == wanted).count();
    let misfits = count(Action::Misfit);
    let left = if misfits > 0 { format!("; {misfits} left as found, see above") } else { String::new() };
    if asked.dry_run {
        let fits: Vec<_> = findings.iter().filter(|finding| finding.action == Action::Adopt).collect();
        let start = if asked.start { " --start" } else { "" };
        let resting = match fits.iter().filter(|finding| !finding.running).count() {
            0 => String::new(),
            _ if asked.start => String::new(),
            stopped => format!(", {stopped} of them as stopped (`--start` starts what is stopped)"),
        };
        return match fits.len() {
            0 => format!("nothing to adopt{left}"),
            fit => format!("`tenant.sh adopt{start}` would adopt {fit} in place{resting}{left}"),
        };
    }
    let adopted: Vec<_> = findings.iter().filter(|finding| finding.action == Action::Adopted).collect();
    let stopped = adopted.iter().filter(|finding| !finding.running).count();
    let then = match (stopped, asked.start) {
        (0, _) => "nothing was restarted".to_owned(),
        (stopped, true) => format!("stopped until now and being started: {stopped} (`tenant.sh list`)"),
        (stopped, false) => format!("stopped and staying so: {stopped}"),
    };
    match adopted.len() {
        0 => format!("nothing was adopted{left}"),
        adopted => format!("{adopted} adopted, {then}{left}"),
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::adoption::{Action, Finding};

    use super::{Adopt, told};

    fn finding(name: &str, running: bool, action: Action) -> Finding {
        Finding {
            name: name.into(),
            listed: false,
            container: true,
            running,
            host_network: false,
            volume: true,
            routed: running,
            port: Some(9001),
            action,
            why: None,
            notes: vec![],
        }
    }

    const DO: Adopt = Adopt { dry_run: false, start: false };

    #[test]
    fn what_was_found_is_a_table_with_remarks_and_a_last_line_that_says_what_is_so_now() {
        let misfit = finding("Eve", true, Action::Adopt).misfit("no name".into());
        let notes = vec!["is stopped, and started now".to_owned()];
        let bob = Finding { notes, ..finding("bob", false, Action::Adopted) };
        let found = [misfit, finding("alice", true, Action::Adopted), bob];
        assert_eq!(
            told(&found, &["the old file is odd".into()], Adopt { start: true, ..DO }),
            "USERNAME  FOUND                   PORT  CONTAINER  ACTION\n\
             Eve       container volume route  9001  running    misfit\n\
             alice     container volume route  9001  running    adopted\n\
             bob       container volume        9001  stopped    adopted\n\
             \n\
             Eve: no name\nbob: is stopped, and started now\nthe old file is odd\n\
             \n\
             2 adopted, stopped until now and being started: 1 (`tenant.sh list`); 1 left as found, see above\n"
        );
    }

    #[test]
    fn the_last_line_fits_what_was_asked() {
        let fits = [finding("alice", true, Action::Adopt)];
        let last = |found: &[Finding], asked| told(found, &[], asked).lines().last().unwrap().to_owned();
        assert_eq!(last(&fits, Adopt { dry_run: true, ..DO }), "`tenant.sh adopt` would adopt 1 in place");
        assert_eq!(
            last(&fits, Adopt { dry_run: true, start: true }),
            "`tenant.sh adopt --start` would adopt 1 in place"
        );
        assert_eq!(
            last(&[finding("alice", false, Action::Adopt)], Adopt { dry_run: true, ..DO }),
            "`tenant.sh adopt` would adopt 1 in place, 1 of them as stopped (`--start` starts what is stopped)"
        );
        assert_eq!(told(&[], &[], Adopt { dry_run: true, ..DO }), "nothing to adopt\n");
        assert_eq!(told(&[], &[], DO), "nothing was adopted\n");
        assert_eq!(last(&[finding("alice", true, Action::Adopted)], DO), "1 adopted, nothing was restarted");
        assert_eq!(last(&[finding("alice", false, Action::Adopted)], DO), "1 adopted, stopped and staying so: 1");
    }
}
