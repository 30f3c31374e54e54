//! `micro server` itself: settings, lock, ports, health.

use micro_tests::Server;

#[test]
fn print_settings_says_where_each_value_came_from() {
    let server = Server::with()
        .settings("[limits]\nupload = '1MiB'")
        .unstarted();
    let mut command = server.server_command();
    command
        .arg("--print-settings")
        .env("MICRO_SERVER_DOMAIN", "example.com");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let line = |key: &str| {
        text.lines()
            .find(|l| l.contains(key))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        line("limits.upload").contains("1MiB") && line("limits.upload").contains("micro.toml"),
        "{text}"
    );
    assert!(
        line("server.domain").contains("example.com")
            && line("server.domain").contains("MICRO_SERVER_DOMAIN"),
        "{text}"
    );
    assert!(
        line("server.gateway_address").contains("--gateway-address"),
        "{text}"
    );
    assert!(line("limits.memory").contains("default"), "{text}");
}

#[test]
fn a_wrong_setting_is_refused_with_its_name() {
    let server = Server::with()
        .settings("[server]\nisolaton = 'required'")
        .unstarted();
    let output = server.server_command().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("server.isolation"), "{text}");
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let server = Server::start();
    let output = server.server_command().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        text.contains(&server.supervisor().to_string()),
        "it names the process that holds it: {text}"
    );
}

#[test]
fn a_taken_port_is_named_with_its_door() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let server = Server::with()
        .flag("--gateway-address", &address)
        .unstarted();
    let output = server.server_command().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        text.contains("gateway") && text.contains(&address),
        "{text}"
    );
}

#[test]
fn the_admin_door_tells_health_and_metrics() {
    let server = Server::start();
    let admin = format!("http://{}", server.address("admin"));
    assert_eq!(server.curl_url(&format!("{admin}/live"), &[]).status, 200);
    assert_eq!(server.curl_url(&format!("{admin}/ready"), &[]).status, 200);
    server.curl("/nothing", &[]);
    let metrics = server.curl_url(&format!("{admin}/metrics"), &[]);
    assert!(
        metrics.body.contains("micro_requests_total"),
        "{}",
        metrics.body
    );
}

#[test]
fn systemd_is_told_when_it_is_ready() {
    let server = Server::with().unstarted();
    let socket = server.scratch("notify").join("socket");
    let listener = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    listener
        .set_read_timeout(Some(std::time::Duration::from_secs(60)))
        .unwrap();
    let mut child = server
        .server_command()
        .env("NOTIFY_SOCKET", &socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut buffer = [0; 512];
    let told = loop {
        let length = listener.recv(&mut buffer).expect("a notification");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.contains("READY=1") {
            break true;
        }
    };
    assert!(told);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert!(child.wait().unwrap().success());
}
