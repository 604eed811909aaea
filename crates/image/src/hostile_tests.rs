//! Rows C1, C2, C6, C7 and C8 of the table of known flaws: layers that try to reach out of their root or to steer overlay.
//! Each test says which change of the code it was seen to fail with.

use hull_tests::hostile::{Hostile, escapes, random};
use hull_tests::sentinel::Sentinel;
use tar::EntryType;

use super::*;

/// A store in memory with a tree beside it that nothing may touch.
struct Place {
    folder: tempfile::TempDir,
    sentinel: Sentinel,
    store: Store,
}

impl Place {
    fn new() -> Self {
        // In memory, since a thousand images are synced to it; links from one to the other must be possible.
        let folder = tempfile::Builder::new().prefix("hull-test-").tempdir_in("/dev/shm").expect("a folder");
        let sentinel = Sentinel::new(&folder.path().join("sentinel"));
        let store = Store::open(&folder.path().join("store")).expect("a store");
        Self { folder, sentinel, store }
    }

    /// Receives the image, and nothing outside is touched.
    fn receive(&self, layers: &[Vec<u8>], what: &str) -> Result<Image> {
        let result = receive(&self.store, &remote(layers), "x");
        self.sentinel.assert_untouched(what);
        result
    }

    /// It is refused, and the store has nothing of it.
    fn refused(&self, tar: Tar, what: &str) -> String {
        let error = self.receive(&[tar.end()], what).err().unwrap_or_else(|| panic!("{what} was taken"));
        for folder in ["layers", "staging", "blobs/sha256", "downloads"] {
            let left: Vec<_> = std::fs::read_dir(self.store.root().join(folder)).expect("a list").collect();
            assert!(left.is_empty(), "{what}: {folder}: {left:?}");
        }
        error.to_string()
    }

    /// The tree of the top layer.
    fn top(&self, image: &Image) -> std::path::PathBuf {
        self.store.layers(image).expect("layers").last().expect("a layer").diff().to_owned()
    }
}

/// C1, CVE-2021-29136. Fails without the check for the root in `Target::entry`.
#[test]
fn c1_an_entry_that_means_the_root_is_a_folder_or_is_refused() {
    for name in [".", "./", "/", "/.", "", "//", "./."] {
        let place = Place::new();
        for (what, tar) in [
            ("symlink", Tar::default().symlink(name, "x")),
            ("link", Tar::default().file("a", "").link(name, "a")),
            ("file", Tar::default().file(name, "")),
            ("FIFO", Tar::default().entry(EntryType::Fifo, name, "")),
            ("device", Tar::default().device(name, 1, 3)),
        ] {
            place.refused(tar, &format!("{what} {name:?}"));
        }
        let image =
            place.receive(&[Tar::default().folder(name).end()], name).unwrap_or_else(|e| panic!("{name:?}: {e}"));
        assert!(std::fs::metadata(place.top(&image)).expect("a root").is_dir());
    }
    for name in ["..", "a/..", "a/../..", "../x", "a/../../x", "/../x", "./../x"] {
        let place = Place::new();
        for (what, tar) in [
            ("folder", Tar::default().folder(name)),
            ("symlink", Tar::default().symlink(name, "x")),
            ("link", Tar::default().file("a", "").link(name, "a")),
            ("link target", Tar::default().link("a", name)),
            ("file", Tar::default().file(name, "")),
        ] {
            place.refused(tar, &format!("{what} {name:?}"));
        }
    }
}

/// C2, CVE-2021-32760, CVE-2025-47290, CVE-2026-33056, CVE-2026-17106. Fails without `RESOLVE_IN_ROOT` where a parent is a
/// link, without `NOFOLLOW` in `HANDLE` or in how `tree` opens a folder, and if the owner, the time or the target of a hard
/// link are those behind a symlink.
#[test]
fn c2_no_entry_reaches_through_a_link_whatever_its_kind() {
    let place = Place::new();
    let all = escapes(place.sentinel.path());
    let mut taken = 0;
    for Hostile { what, layers } in &all {
        taken += usize::from(place.receive(layers, what).is_ok());
    }
    // Most are legal images whose links mean a place inside; if all were refused nothing was tried.
    assert!(taken > all.len() / 3, "{taken} of {}", all.len());
    for seed in 0..300 {
        let Hostile { what, layers } = random(place.sentinel.path(), seed);
        // Refused or resolved inside: both are fine.
        let _ = place.receive(&layers, &what);
    }
}

/// The other half of C2: what images really have is not refused.
#[test]
fn c2_absolute_links_inside_an_image_are_followed_inside() {
    let place = Place::new();
    let below = Tar::default().folder("usr/bin").symlink("bin", "/usr/bin").symlink("sbin", "../../../usr/bin").end();
    let same =
        Tar::default().folder("usr/bin").symlink("bin", "/usr/bin").file("bin/a", "1").file("bin/b", "2").end();
    let image = place.receive(&[below, same], "links inside").expect("an image");
    assert_eq!(
        listing(&place.top(&image)),
        ["bin -> /usr/bin", "usr/ 755", "usr/bin/ 755", "usr/bin/a 644 1", "usr/bin/b 644 2"]
    );
}

/// A header of GNU's old format for a file with holes: regions, the file's length, whether more regions follow.
fn holes(regions: &[(u64, u64)], size: u64, more: bool, data: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..3].copy_from_slice(b"bad");
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(data);
    let gnu = header.as_gnu_mut().expect("GNU's format");
    for (slot, (at, length)) in gnu.sparse.iter_mut().zip(regions) {
        slot.offset.copy_from_slice(format!("{at:011o}\0").as_bytes());
        slot.numbytes.copy_from_slice(format!("{length:011o}\0").as_bytes());
    }
    gnu.realsize[0] = 0x80;
    gnu.realsize[4..].copy_from_slice(&size.to_be_bytes());
    gnu.isextended[0] = u8::from(more);
    header.set_cksum();
    header
}

/// C5, CVE-2025-58183. Fails without `REGIONS_MAX`, without the sum of a layer's claims and without the check of the regions
/// against each other. That memory stays bounded is held for the whole program, in the integration tests.
#[test]
fn c5_maps_of_holes_are_bounded_and_make_sense() {
    let pax = |records: &[(&str, &str)], data: &str| Tar::default().pax(records).file("bad", data);
    let form_1 = |size: &str, map: &str| {
        let data = format!("{map:\0<512}data");
        pax(
            &[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.name", "bad"),
                ("GNU.sparse.realsize", size),
            ],
            &data,
        )
    };
    let old = |regions: &[(u64, u64)], size| Tar::default().raw(&holes(regions, size, false, 4), b"data");
    let mut endless = Tar::default().raw(&holes(&[(0, 1); 4], 1 << 30, true, 1 << 30), b"");
    let mut block = vec![0u8; 512];
    for slot in block.chunks_exact_mut(24).take(21) {
        slot[..12].copy_from_slice(b"00000000001\0");
        slot[12..].copy_from_slice(b"00000000001\0");
    }
    block[504] = 1;
    // The beginning of 10^8 regions.
    endless.0.extend(std::iter::repeat_n(block, 5000).flatten());
    for (what, tar, why) in [
        ("regions without an end", endless, "too many holes"),
        ("10^8 regions said", form_1("4", "100000000\n0\n4\n"), "too many holes"),
        ("a map that is no number", form_1("4", "1\nx\n4\n"), "malformed"),
        ("a map of endless digits", form_1("4", &"1".repeat(100)), "malformed"),
        ("a map without an end", form_1("4", "9\n0\n4\n"), "malformed"),
        ("8 EiB", old(&[(0, 4)], 1 << 63), "malformed size"),
        ("8 EiB less one", old(&[(0, 4)], (1 << 63) - 1), "larger than"),
        ("more than a layer may have", old(&[(0, 4)], (64 << 30) + 1), "larger than"),
        (
            "two files that claim it together",
            Tar([old(&[(0, 4)], 40 << 30).0, old(&[(0, 4)], 40 << 30).0].concat()),
            "larger than",
        ),
        ("regions that overlap", old(&[(0, 2), (1, 2)], 8), "overlap"),
        ("regions out of order", old(&[(4, 2), (0, 2)], 8), "overlap"),
        ("a region outside", old(&[(6, 4)], 8), "outside"),
        ("fewer bytes than data", old(&[(0, 2)], 8), "2 bytes"),
        ("more bytes than data", old(&[(0, 8)], 8), "8 bytes"),
        (
            "a folder with holes",
            Tar::default().pax(&[("GNU.sparse.size", "4"), ("GNU.sparse.map", "0,4")]).folder("bad"),
            "not a file",
        ),
        ("half a region", pax(&[("GNU.sparse.size", "4"), ("GNU.sparse.map", "0,4,8")], "data"), "cut short"),
        (
            "another number of regions",
            pax(&[("GNU.sparse.size", "4"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.map", "0,4")], "data"),
            "cut short",
        ),
        (
            "two maps",
            pax(
                &[
                    ("GNU.sparse.size", "4"),
                    ("GNU.sparse.map", "0,4"),
                    ("GNU.sparse.offset", "0"),
                    ("GNU.sparse.numbytes", "4"),
                ],
                "data",
            ),
            "two maps",
        ),
        (
            "two lengths",
            pax(&[("GNU.sparse.size", "4"), ("GNU.sparse.realsize", "8"), ("GNU.sparse.map", "0,4")], "data"),
            "not one length",
        ),
        (
            "form 2.0",
            pax(&[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "4")], "data"),
            "not supported",
        ),
    ] {
        let said = Place::new().refused(tar, what);
        assert!(said.contains(why), "{what}: {said}");
    }
    // What is sparse and honest is taken.
    for tar in [old(&[(0, 4)], 1 << 40 >> 6), form_1("4096", "1\n4000\n4\n")] {
        Place::new().receive(&[tar.end()], "an honest one").expect("an image");
    }
}

/// C6, containerd's out-of-range numbers. Fails with the ranges of `archive::device` and `archive::id` taken away.
#[test]
fn c6_numbers_out_of_range_are_refused_before_anything_is_made() {
    let regular = |change: fn(&mut tar::Header)| {
        Tar::default().with(Tar::header(EntryType::Regular, "bad", "", 0), change, b"")
    };
    let pax = |key, value| Tar::default().pax(&[(key, value)]).file("bad", "");
    for (what, tar) in [
        ("major number", Tar::default().device("bad", 1 << 12, 0)),
        ("minor number", Tar::default().device("bad", 0, 1 << 20)),
        ("owner -1", regular(|header| header.set_uid(u32::MAX.into()))),
        ("owner 2^32", regular(|header| header.set_uid(1 << 32))),
        ("group -1", regular(|header| header.set_gid(u32::MAX.into()))),
        ("group 2^32", regular(|header| header.set_gid(1 << 32))),
        ("negative owner", regular(|header| header.as_old_mut().uid = [0xff; 8])),
        ("PAX owner 2^32", pax("uid", "4294967296")),
        ("PAX owner -1", pax("uid", "-1")),
        ("PAX group 2^64", pax("gid", "18446744073709551616")),
    ] {
        let why = Place::new().refused(tar, what);
        assert!(why.contains("cannot"), "{why}");
    }
}

/// C7, umoci 635306a3. Fails if a whiteout without a name counts as an opaque mark, and if entries below a whiteout are taken.
#[test]
fn c7_whiteouts_without_a_name_are_refused_and_others_touch_lower_layers_alone() {
    for name in [".wh.", "d/.wh.", ".wh..", ".wh...", ".wh.a/b", "d/.wh.a/b/c"] {
        Place::new().refused(Tar::default().file(name, ""), name);
    }
    let place = Place::new();
    let out = place.sentinel.path().to_string_lossy().into_owned();
    let below = Tar::default().symlink("l", &out).folder("d").file("d/old", "1").file("e/old", "1").end();
    let above = Tar::default()
        .file("l/.wh.file", "")
        .file("d/new", "2")
        .file("d/.wh.new", "")
        .file("d/.wh..wh..opq", "")
        .file(".wh.e", "")
        .end();
    let image = place.receive(&[below, above], "whiteouts").expect("an image");
    let layers = place.store.layers(&image).expect("layers");
    let root = crate::rootfs::overlay(&layers, None, false).expect("a mount");
    let seen = |path: &str| rustix::fs::statat(&root, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok();
    // A whiteout in `l/` makes a folder of the link, as an entry below it does.
    assert_eq!(["d/old", "d/new", "e", "l/file"].map(seen), [false, true, false, false]);
}

/// C8, overlay's own attributes. Fails with any of the prefixes in `apply::kept` taken away.
#[test]
fn c8_no_attribute_of_overlay_comes_out_of_a_layer() {
    let place = Place::new();
    let below = Tar::default().folder("secret").file("secret/file", "of the layer below").end();
    let overlay = [
        "redirect",
        "metacopy",
        "origin",
        "impure",
        "upper",
        "nlink",
        "opaque",
        "protattr",
        "overlay.opaque",
        "whiteout",
    ];
    let mut records: Vec<(String, String)> = Vec::new();
    for namespace in ["trusted", "user"] {
        records
            .extend(overlay.map(|name| (format!("SCHILY.xattr.{namespace}.overlay.{name}"), "/secret".to_owned())));
    }
    records.push(("SCHILY.xattr.security.selinux".to_owned(), "system_u:object_r:shadow_t:s0".to_owned()));
    records.push(("SCHILY.xattr.trusted.kept".to_owned(), "yes".to_owned()));
    let records: Vec<(&str, &str)> = records.iter().map(|(name, value)| (&**name, &**value)).collect();
    let above =
        Tar::default().pax(&records).folder("d").pax(&records).file("file", "").pax(&records).symlink("l", "x").end();
    let image = place.receive(&[below, above], "attributes").expect("an image");
    let top = place.top(&image);
    for name in ["d", "file", "l"] {
        let mut list = [0u8; 4096];
        let length = rustix::fs::llistxattr(top.join(name), &mut list[..]).expect("attributes");
        assert_eq!(String::from_utf8_lossy(&list[..length]), "trusted.kept\0", "{name}");
    }
    let root = crate::rootfs::overlay(&place.store.layers(&image).expect("layers"), None, false).expect("a mount");
    assert!(rustix::fs::statat(&root, "d/file", rustix::fs::AtFlags::empty()).is_err(), "d leads nowhere else");
    drop(place.folder);
}
