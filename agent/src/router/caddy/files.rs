//! Routes as files: what Caddy looks at for each request.
//!
//! Each host name has a folder with one empty file in it, whose name is the route. A route is changed by renaming that file: a
//! request sees the old or the new one, never none. A probe is a file beside that, in another tree. What stands here outlives
//! agent and Caddy, and is made what it should be at the first application of routes after a start.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use feather_proto::ids::TenantName;

use super::CaddyOptions;
use crate::router::Route;

/// The trees of one server.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) tenants: PathBuf,
    pub(super) probes: PathBuf,
    pub(super) work: PathBuf,
    pub(super) gates: PathBuf,
    pub(super) domain_suffix: String,
}

impl Files {
    pub(super) fn of(options: &CaddyOptions) -> Self {
        Self {
            tenants: options.routes.join("tenants"),
            probes: options.routes.join("probes"),
            work: options.routes.join("work"),
            gates: options.gates.clone(),
            domain_suffix: options.domain_suffix.clone(),
        }
    }
}

/// What a tenant's folder shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// Whatever it holds now.
    AsItIs,
    /// This, if anything, and this probe.
    Exactly { route: Option<String>, probe: Option<String> },
}

impl Entry {
    /// Of a route that is ours to make.
    pub(super) fn of(route: &Route) -> Self {
        match route {
            Route::Foreign => Entry::AsItIs,
            Route::Probe { port, token, otherwise } => {
                Entry::Exactly { route: otherwise.as_deref().and_then(name_of), probe: Some(format!("{token}@{port}")) }
            }
            public => Entry::Exactly { route: name_of(public), probe: None },
        }
    }

    /// Nothing: somebody else's route serves the tenant.
    pub(super) fn none() -> Self {
        Entry::Exactly { route: None, probe: None }
    }
}

fn name_of(route: &Route) -> Option<String> {
    match route {
        Route::Serve { port } => Some(format!("serve:{port}")),
        Route::Unavailable => Some("unavailable".into()),
        Route::Hold { port, .. } => Some(format!("hold:{port}")),
        // A server's name before the address: it is reached by TLS.
        Route::Forward { to } if to.contains('@') => Some(format!("tls:{to}")),
        Route::Forward { to } => Some(format!("forward:{to}")),
        Route::Probe { .. } | Route::Foreign => None,
    }
}

impl Files {
    /// What Caddy lists for each request of a tenant.
    pub(super) fn folder(&self, tenant: &TenantName) -> PathBuf {
        self.tenants.join(tenant.host(&self.domain_suffix))
    }

    /// Makes the files exactly these. Returns whether any was changed.
    pub(super) fn apply(&self, want: &BTreeMap<TenantName, Entry>) -> io::Result<bool> {
        let mut changed = false;
        let hosts: BTreeMap<String, &Entry> =
            want.iter().map(|(tenant, entry)| (tenant.host(&self.domain_suffix), entry)).collect();
        for (tree, is_probe) in [(&self.probes, true), (&self.tenants, false)] {
            for (host, entry) in &hosts {
                if let Entry::Exactly { route, probe } = entry {
                    let name = if is_probe { probe } else { route };
                    changed |= hold_only(&tree.join(host), name.as_deref())?;
                }
            }
            for host in list(tree)?.iter().filter(|host| !hosts.contains_key(*host)) {
                changed |= hold_only(&tree.join(host), None)?;
            }
        }
        Ok(changed)
    }

    /// The admin container's port: one file called by it, or none. Returns whether anything was changed.
    pub(super) fn apply_admin(&self, port: Option<u16>) -> io::Result<bool> {
        hold_only(&self.work, port.map(|port| port.to_string()).as_deref())
    }

    /// Its port, as the file says.
    pub(super) fn read_admin(&self) -> io::Result<Option<u16>> {
        Ok(list(&self.work)?.first().and_then(|name| name.parse().ok()))
    }

    /// What the files say.
    pub(super) fn read(&self) -> io::Result<BTreeMap<TenantName, Route>> {
        let mut routes = BTreeMap::new();
        let host_end = format!(".{}", self.domain_suffix);
        let tenant_of = |host: &str| host.strip_suffix(&host_end)?.parse::<TenantName>().ok();
        for host in list(&self.tenants)? {
            let Some(tenant) = tenant_of(&host) else { continue };
            if let Some(route) = list(&self.tenants.join(&host))?.first().and_then(|name| self.parse(&tenant, name)) {
                routes.insert(tenant, route);
            }
        }
        for host in list(&self.probes)? {
            let Some(tenant) = tenant_of(&host) else { continue };
            let names = list(&self.probes.join(&host))?;
            let Some((token, port)) = names.first().and_then(|name| name.split_once('@')) else { continue };
            let Ok(port) = port.parse() else { continue };
            let otherwise = routes.remove(&tenant).map(Box::new);
            routes.insert(tenant, Route::Probe { port, token: token.to_owned(), otherwise });
        }
        Ok(routes)
    }

    fn parse(&self, tenant: &TenantName, name: &str) -> Option<Route> {
        let (kind, rest) = name.split_once(':').unwrap_or((name, ""));
        match kind {
            "serve" => Some(Route::Serve { port: rest.parse().ok()? }),
            "unavailable" => Some(Route::Unavailable),
            "hold" => Some(Route::Hold { gate: self.gates.join(tenant.as_str()), port: rest.parse().ok()? }),
            "forward" | "tls" => Some(Route::Forward { to: rest.to_owned() }),
            _ => None,
        }
    }
}

/// Names in a folder, in order; none when it is not there.
fn list(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Leaves exactly one file of this name in the folder, or no folder. Returns whether anything was changed.
fn hold_only(folder: &Path, name: Option<&str>) -> io::Result<bool> {
    let present = list(folder)?;
    let Some(name) = name else {
        for file in &present {
            fs::remove_file(folder.join(file))?;
        }
        return match fs::remove_dir(folder) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
    };
    if present.as_slice() == [name] {
        return Ok(false);
    }
    match present.first().filter(|_| !present.iter().any(|file| file == name)) {
        Some(file) => fs::rename(folder.join(file), folder.join(name))?,
        None => {
            fs::create_dir_all(folder)?;
            fs::OpenOptions::new().create(true).append(true).open(folder.join(name))?;
        }
    }
    // There is never more than one, unless somebody else put it there.
    for file in list(folder)?.iter().filter(|file| *file != name) {
        fs::remove_file(folder.join(file))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use feather_proto::ids::TenantName;

    use super::{Entry, Files};
    use crate::router::Route;

    fn files(place: &std::path::Path) -> Files {
        Files {
            tenants: place.join("tenants"),
            probes: place.join("probes"),
            work: place.join("work"),
            gates: place.join("gates"),
            domain_suffix: "users.example.com".into(),
        }
    }

    fn every_kind(files: &Files) -> BTreeMap<TenantName, Route> {
        let serve = Route::Serve { port: 9001 };
        let forward = Route::Forward { to: "[2001:db8::7]:80".to_owned() };
        let by_tls = Route::Forward { to: "fra@[2001:db8::7]:443".to_owned() };
        let probe = |otherwise: Option<&Route>| Route::Probe {
            port: 9002,
            token: "secret".to_owned(),
            otherwise: otherwise.cloned().map(Box::new),
        };
        let kinds = [
            serve.clone(),
            Route::Unavailable,
            forward.clone(),
            Route::Hold { gate: files.gates.join("t3"), port: 9003 },
            probe(None),
            probe(Some(&forward)),
            probe(Some(&Route::Unavailable)),
            by_tls.clone(),
            probe(Some(&by_tls)),
        ];
        kinds.into_iter().enumerate().map(|(index, route)| (format!("t{index}").parse().unwrap(), route)).collect()
    }

    fn entries(routes: &BTreeMap<TenantName, Route>) -> BTreeMap<TenantName, Entry> {
        routes.iter().map(|(tenant, route)| (tenant.clone(), Entry::of(route))).collect()
    }

    #[test]
    fn every_kind_is_read_back_as_it_was_written_and_replaces_every_other() {
        let place = tempfile::tempdir().unwrap();
        let files = files(place.path());
        let all = every_kind(&files);
        assert!(files.apply(&entries(&all)).unwrap());
        assert_eq!(files.read().unwrap(), all);
        assert!(!files.apply(&entries(&all)).unwrap());
        let alice: TenantName = "t3".parse().unwrap();
        for first in all.values() {
            for second in all.values() {
                for route in [first, second] {
                    files.apply(&entries(&[(alice.clone(), route.clone())].into())).unwrap();
                    let fixed = |route: &Route| format!("{route:?}");
                    let read = files.read().unwrap();
                    assert_eq!(read.values().map(fixed).collect::<Vec<_>>(), [fixed(route)]);
                }
            }
        }
        assert!(files.apply(&BTreeMap::new()).unwrap());
        assert_eq!(files.read().unwrap(), BTreeMap::new());
        assert!(!files.apply(&BTreeMap::new()).unwrap());
    }

    #[test]
    fn the_admin_container_has_one_port_or_none() {
        let place = tempfile::tempdir().unwrap();
        let files = files(place.path());
        for port in [None, Some(8080), Some(8081), None] {
            let before = files.read_admin().unwrap();
            assert_eq!(files.apply_admin(port).unwrap(), before != port);
            assert_eq!(files.read_admin().unwrap(), port);
            assert!(!files.apply_admin(port).unwrap());
        }
    }

    #[test]
    fn what_is_left_as_it_is_stays_and_what_does_not_belong_there_goes() {
        let place = tempfile::tempdir().unwrap();
        let files = files(place.path());
        let alice: TenantName = "alice".parse().unwrap();
        let serve: BTreeMap<_, _> = [(alice.clone(), Route::Serve { port: 9001 })].into();
        files.apply(&entries(&serve)).unwrap();
        assert!(!files.apply(&[(alice.clone(), Entry::AsItIs)].into()).unwrap());
        assert_eq!(files.read().unwrap(), serve);
        let folder = files.tenants.join("alice.users.example.com");
        std::fs::write(folder.join("zzz"), "").unwrap();
        std::fs::create_dir(files.tenants.join("stray.example.com")).unwrap();
        assert!(files.apply(&entries(&serve)).unwrap());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(&files.tenants).unwrap().count(), 1);
        assert!(files.apply(&[(alice, Entry::none())].into()).unwrap());
        assert_eq!(files.read().unwrap(), BTreeMap::new());
    }
}
