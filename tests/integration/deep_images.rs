//! Images of more layers than overlay's old interface takes.

use hull_tests::scripted::{Scripted, TinyImage, pull_command};
use hull_tests::tar::Tar;
use hull_tests::{Builder, Said};

/// Overlay's layer-append API takes 500 layers; one string of names takes 128 at most. An upper layer wins over all that
/// are below, and what it deletes is gone.
#[test]
fn an_image_of_two_hundred_layers_is_pulled_built_on_and_run() {
    let store = Builder::new();
    let base = std::fs::read(store.archive()).unwrap();
    let layer = |number: usize| {
        let archive = Tar::default().file("last", &number.to_string()).folder("n");
        let archive = archive.file(&format!("n/{number}"), &number.to_string());
        let below = number.checked_sub(1).filter(|below| below % 2 == 1);
        match below {
            Some(below) => archive.file(&format!("n/.wh.{below}"), "").end(),
            None => archive.end(),
        }
    };
    let layers: Vec<Vec<u8>> = [base].into_iter().chain((1..200).map(layer)).collect();
    let image = TinyImage::stack(&layers);
    let registry = Scripted::new(move |asked| image.answer(asked));
    let said: Said =
        pull_command(store.corner(), &registry, &["--tls-verify=false", "-q"], "a/b:1").output().unwrap().into();
    assert_eq!(said.code, 0, "{said:?}");
    let name = format!("{}/a/b:1", registry.address());
    // Of the odd ones only the last is not deleted again by the next layer.
    let script = "cat /last; echo; ls /n | wc -l; cat /n/198 /n/199; ls /n/197 2>&1 | grep -c No";
    let told = "199\n100\n1981991\n";
    let said = store.hull(&["run", "--rm", &name, "sh", "-c", script]);
    assert_eq!((said.code, &*said.out), (0, told), "{said:?}");
    let said = store.build(&format!("FROM {name}\nRUN echo 200 > /last && rm /n/199\n"));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(store.shell("cat /last; ls /n | wc -l").out, "200\n99\n");
    assert_eq!(
        store.hull(&["system", "check", "--quick"]).out.lines().filter(|line| !line.contains("group")).count(),
        0
    );
}

#[test]
fn info_tells_how_roots_are_made() {
    let store = Builder::new();
    let said = store.hull(&["info"]);
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let most = if version >= (6, 13) { 500 } else { 128 };
    let told = format!("Storage driver: overlay\nLayers of an image: at most {most}\n");
    assert!(said.code == 0 && said.out.contains(&told), "{said:?}");
}
