//! The command line is taken as Micro's users write it.

use clap::FromArgMatches as _;

use super::*;

fn parse(text: &str) -> CommandLine {
    let matches = command().try_get_matches_from(text.split(' ')).unwrap();
    CommandLine::from_arg_matches(&matches).unwrap()
}

#[test]
fn the_command_line_is_sound() {
    command().debug_assert();
}

#[test]
fn global_flags_go_anywhere() {
    for text in [
        "micro --env dev --output json status",
        "micro status -e dev -o json",
        "micro status --output=json --env=dev",
    ] {
        let line = parse(text);
        assert_eq!(line.env.as_deref(), Some("dev"), "{text}");
        assert_eq!(line.output, Some(Form::Json), "{text}");
    }
}

#[test]
fn unknown_words_are_services_with_all_that_follows() {
    let line = parse("micro -e dev helloworld call --name=Alice --env x");
    assert_eq!(line.env.as_deref(), Some("dev"));
    let Some(Command::Service(words)) = line.command else {
        panic!("not a service")
    };
    assert_eq!(words, ["helloworld", "call", "--name=Alice", "--env", "x"]);
}

#[test]
fn every_setting_is_a_flag_of_the_server() {
    let matches = command()
        .try_get_matches_from(["micro", "server", "--gateway-address", "127.0.0.1:0"])
        .unwrap();
    let (_, server) = matches.subcommand().unwrap();
    assert_eq!(
        server
            .get_one::<String>("gateway-address")
            .map(String::as_str),
        Some("127.0.0.1:0")
    );
}

#[test]
fn micros_flags_of_run_are_known() {
    let line = parse(
        "micro run --name x --env_vars A=1,B=2 --env_vars C=3 -i 2 --metadata a=b --args -v --force .",
    );
    let Some(Command::Run(run)) = line.command else {
        panic!("not run")
    };
    assert_eq!(run.env_vars, ["A=1,B=2", "C=3"]);
    assert_eq!(
        (run.instances, run.force, run.args.as_deref()),
        (Some(2), true, Some("-v"))
    );
    assert_eq!(run.source.as_deref(), Some("."));
}

#[test]
fn a_request_may_be_a_negative_number() {
    let line = parse("micro call x X.Y -5 --output raw");
    assert_eq!(line.output, Some(Form::Raw));
    let Some(Command::Call(call)) = line.command else {
        panic!("not call")
    };
    assert_eq!(call.body, ["-5"]);
}

#[test]
fn the_letters_of_store_are_micros() {
    let line =
        parse("micro store read -d db -t users -p -s -l 3 -o 2 -v --order desc --output json x");
    assert_eq!(line.output, Some(Form::Json));
    let Some(Command::Store(Store {
        command: StoreCommand::Read(read),
    })) = line.command
    else {
        panic!("not store read")
    };
    assert_eq!(read.key.as_deref(), Some("x"));
    assert_eq!(
        (read.table.database.as_deref(), read.table.table.as_str()),
        (Some("db"), "users")
    );
    assert!(read.prefix && read.suffix && read.verbose);
    assert_eq!((read.page.limit, read.page.offset), (3, 2));
    assert_eq!(read.page.order.map(|o| o.word()), Some("desc"));
    let line = parse("micro -e dev store write -e 1h k -5 --env prod");
    assert_eq!(line.env.as_deref(), Some("prod"));
    let Some(Command::Store(Store {
        command: StoreCommand::Write(write),
    })) = line.command
    else {
        panic!("not store write")
    };
    assert_eq!(write.expiry.as_deref(), Some("1h"));
    assert_eq!(write.value, ["-5"]);
    assert_eq!(parse("micro -o json store list").output, Some(Form::Json));
    assert_eq!(
        parse("micro store delete -o json k").output,
        Some(Form::Json)
    );
}

#[test]
fn a_dash_is_a_value() {
    for text in [
        "micro store write k -",
        "micro config set k -",
        "micro events publish t -",
        "micro blob write k -",
        "micro blob read k -",
    ] {
        parse(text);
    }
}

#[test]
fn consumers_begin_where_they_are_told() {
    let start = |text: &str| text.parse::<Start>();
    assert_eq!(start("beginning"), Ok(Start::Offset(0)));
    assert_eq!(start("42"), Ok(Start::Offset(42)));
    assert_eq!(
        start("2023-11-14T22:13:20Z"),
        Ok(Start::Time(1_700_000_000))
    );
    assert_eq!(start("1900-01-01T00:00:00Z"), Ok(Start::Offset(0)));
    assert!(matches!(start("10m"), Ok(Start::Time(at)) if at > 1_700_000_000));
    assert!(start("soon").is_err());
}

#[test]
fn messages_name_the_command_that_was_found() {
    let path = |text: &str| {
        let args: Vec<_> = text.split(' ').map(OsString::from).collect();
        path_of(&args, &command())
    };
    assert_eq!(path("micro store sync"), "micro store");
    assert_eq!(path("micro --env dev auth list x"), "micro auth list");
}
