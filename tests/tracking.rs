//! add, status, diff, ls, rm, mv.

use crate::support::{Sandbox, noise};

#[test]
fn the_loop_of_one_artifact() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("w.bin", noise(1, 100_000), "v1");
    assert_eq!(repo.state("w.bin"), "clean");
    assert_eq!(repo.text(".gitignore"), "/w.bin\n");
    repo.write("w.bin", noise(2, 100_000));
    assert_eq!(repo.state("w.bin"), "modified");
    repo.model(["status", "--check"]).fails(3, "1 artifact not in step");
}
