//! The host key that a launch hands over is good once.

use gitlab_aws_agent::HostKey;

use crate::launch::{Greeter, Launch, base64, log_in};

#[tokio::test]
async fn after_the_pin_the_launchs_key_proves_nothing() {
    let agent = Launch::new().entrypoint("\"$0\"; exit 0").start();
    let (session, seen) = agent.login().await;
    assert_eq!(seen.line(), agent.keys.first_line());
    let (mut greeter, facts) = Greeter::new(session).await;
    let second = facts["host-key"].clone();
    assert_ne!(second, agent.keys.first_line());

    // Until then the first one is shown, and the second stays the same.
    let (session, seen) = agent.login().await;
    assert_eq!(seen.line(), agent.keys.first_line());
    let (_again, facts) = Greeter::new(session).await;
    assert_eq!(facts["host-key"], second);

    assert_eq!(greeter.order("pin").await, "pinned");
    let (session, seen) = agent.login().await;
    assert_eq!(seen.line(), second);
    let (mut pinned, facts) = Greeter::new(session).await;
    assert_eq!(facts["host-key"], second);
    // Once more does no harm, and the connection from before goes on.
    assert_eq!(pinned.order("pin").await, "pinned");
    assert_eq!(greeter.hello().await["host-key"], second);
    let (_session, seen) = agent.login().await;
    assert_eq!(seen.line(), second);

    // What is left to steal, where the entrypoint does not become the agent: the launch's key, which is another one.
    let (environment, _, _) = agent.run("tr '\\0' '\\n' </proc/1/environ").await;
    let stolen = environment
        .split_whitespace()
        .find_map(|word| word.rsplit_once("host-key=").map(|(_, value)| value))
        .unwrap();
    assert_eq!(stolen, base64(&agent.keys.seed));
    let thief = HostKey::from_seed(&agent.keys.seed);
    assert_ne!(thief.public_line().unwrap(), second);
    // Nothing that a script can read there holds the other one.
    let (files, _, _) = agent
        .run("cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'")
        .await;
    assert!(!files.contains(second.split(' ').nth(1).unwrap()));
}

#[tokio::test]
async fn whoever_holds_the_launchs_key_does_not_pass() {
    // A client that has pinned the second key, and a server that has stolen the first.
    let real = Launch::new().start();
    let (mut greeter, facts) = real.greet().await;
    assert_eq!(greeter.order("pin").await, "pinned");
    let mut thief = Launch::new();
    thief.words = thief
        .words
        .replace(&base64(&thief.keys.seed), &base64(&real.keys.seed));
    let thief = thief.start();
    let (_session, shown) = thief.dial().await;
    assert_eq!(shown.line(), real.keys.first_line());
    assert_ne!(shown.line(), facts["host-key"]);
    // Its own second key is another draw.
    let (_greeter, drawn) = thief.greet().await;
    assert_ne!(drawn["host-key"], facts["host-key"]);
}

#[tokio::test]
async fn only_the_jobs_key_logs_in() {
    let agent = Launch::new().start();
    let other = crate::launch::Keys::new();
    let (mut session, _) = agent.dial().await;
    let key = russh::keys::PrivateKeyWithHashAlg::new(other.login.into(), None);
    let result = session.authenticate_publickey("job", key).await.unwrap();
    assert!(!result.success());
    log_in(&mut session, &agent.keys.login).await;
}

#[tokio::test]
async fn a_plain_server_has_one_key() {
    let agent = crate::harness::Agent::start();
    let session = agent.login().await;
    let mut channel = session.channel_open_session().await.unwrap();
    channel
        .request_subsystem(true, "gad-greeting")
        .await
        .unwrap();
    channel
        .data_bytes("hello 0.1.0\npin\n".to_owned())
        .await
        .unwrap();
    let mut text = String::new();
    while !text.contains("pinned\n") {
        if let russh::ChannelMsg::Data { data } = channel.wait().await.unwrap() {
            text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("host-key "))
        .unwrap();
    let told = russh::keys::PublicKey::from_openssh(line).unwrap();
    let told = told.fingerprint(russh::keys::HashAlg::Sha256).to_string();
    assert_eq!(told, agent.fingerprint);
    // The same one afterwards: this checks it.
    drop(agent.login().await);
}
