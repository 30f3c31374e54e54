//! Layers, origins, and errors that name what is wrong.

use super::*;

fn none(_: &str) -> Option<String> {
    None
}

fn file(text: &str) -> (PathBuf, impl Drop) {
    struct Remove(PathBuf);
    impl Drop for Remove {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
    static N: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = N.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("micro-settings-{}-{n}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    (path.clone(), Remove(path))
}

#[test]
fn later_layers_win_and_say_so() {
    let (path, _gone) = file(
        "[server]\ngateway_address = '127.0.0.1:1'\nproxy_address = '127.0.0.1:2'\ndomain = 'a.test'\n[build]\nenv = ['A', 'B']\n",
    );
    let env = |name: &str| match name {
        "MICRO_SERVER_PROXY_ADDRESS" => Some("127.0.0.1:3".into()),
        "MICRO_SERVER_DOMAIN" => Some("b.test".into()),
        _ => None,
    };
    let flags = BTreeMap::from([("domain".to_owned(), "c.test".to_owned())]);
    let loaded = load(Some(&path), env, &flags).unwrap();
    assert_eq!(loaded.settings.server.gateway_address.port(), 1);
    assert_eq!(loaded.settings.server.proxy_address.port(), 3);
    assert_eq!(loaded.settings.server.domain, "c.test");
    assert_eq!(loaded.settings.build.env, ["A", "B"]);
    assert_eq!(
        loaded.origins["server.gateway_address"].1,
        Origin::File(path)
    );
    assert_eq!(
        loaded.origins["server.proxy_address"].1,
        Origin::Env("MICRO_SERVER_PROXY_ADDRESS".into())
    );
    assert_eq!(
        loaded.origins["server.domain"].1,
        Origin::Flag("domain".into())
    );
    assert_eq!(
        loaded.origins["limits.memory"],
        ("512MiB".into(), Origin::Default)
    );
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    let (path, _gone) = file("[server]\ngateway_adress = 'x'\n");
    let text = load(Some(&path), none, &BTreeMap::new())
        .unwrap_err()
        .to_string();
    assert!(text.contains("server.gateway_address"), "{text}");
}

#[test]
fn a_wrong_value_names_its_key_and_origin() {
    let flags = BTreeMap::from([("gateway-address".to_owned(), "nowhere".to_owned())]);
    let text = load(None, none, &flags).unwrap_err().to_string();
    assert!(
        text.contains("server.gateway_address") && text.contains("--gateway-address"),
        "{text}"
    );
    let flags = BTreeMap::from([("isolation".to_owned(), "maybe".to_owned())]);
    let text = load(None, none, &flags).unwrap_err().to_string();
    assert!(
        text.contains("required") && text.contains("best-effort"),
        "{text}"
    );
}

#[test]
fn every_default_is_valid() {
    let gone = { file("").0.clone() };
    assert!(
        load(Some(&gone), none, &BTreeMap::new()).is_err(),
        "the file is gone already"
    );
    let (path, _gone) = file("");
    assert!(load(Some(&path), none, &BTreeMap::new()).is_ok());
}
