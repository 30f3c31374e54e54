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
