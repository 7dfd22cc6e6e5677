//! The shell of a login of `local`: the user's own, where it is one for commands.

use std::path::Path;

use crate::lab;
use crate::lab::runner::Runner;

/// Makes a shell of that name, which notes that it was used, and the driver on a host where it is root's.
fn host(folder: &Path, name: &str) -> std::path::PathBuf {
    let folder = folder.display();
    let shell = format!("{folder}/{name}");
    let text = format!("#!/bin/sh\necho used >> '{folder}/used'\nexec /bin/bash \"$@\"\n");
    lab::write_program(Path::new(&shell), &text);
    std::fs::write(
        format!("{folder}/passwd"),
        format!("root:x:0:0:root:/root:{shell}\n"),
    )
    .unwrap();
    let driver = env!("CARGO_BIN_EXE_gitlab-aws-driver");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount --propagation private sh -c \
         'mount --bind \"{folder}/passwd\" /etc/passwd && exec \"{driver}\" \"$@\"' sh \"$@\"\n"
    );
    let program = Path::new(&format!("{folder}/driver")).to_owned();
    lab::write_program(&program, &text);
    program
}

#[test]
fn a_login_of_local_gets_the_shell_that_passwd_names() {
    for (name, named) in [
        ("bash", true),
        ("zsh", true),
        ("fish", true),
        ("nologin", false),
    ] {
        eprintln!("{name}");
        let folder = lab::temp_dir();
        let driver = host(folder.path(), name);
        let runner = Runner::builder().driver(&driver).build();
        runner.start();
        let wanted = match named {
            true => folder.path().join(name).display().to_string(),
            false => "/bin/sh".to_owned(),
        };
        let output = runner.run("build_script", "echo \"$SHELL\"");
        output.assert_success().assert_stdout(format!("{wanted}\n"));
        // It is named and no more: the agent starts scripts without it.
        assert!(!folder.path().join("used").exists(), "{name}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}
