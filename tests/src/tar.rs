//! Archives written entry by entry, also wrong ones: every byte is as a test wants it.

use tar::{EntryType, Header};

/// A tar archive in the making. Names and links go into the header as they are.
#[derive(Clone, Debug, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    /// A ustar header: mode 0644 (0755 for a folder), root's, of second 1000.
    ///
    /// # Panics
    /// A name longer than 100 bytes.
    pub fn header(kind: EntryType, name: &str, link: &str, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_size(size);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1000);
        if let Some(ustar) = header.as_ustar_mut() {
            ustar.set_device_major(0);
            ustar.set_device_minor(0);
        }
        header.set_cksum();
        header
    }

    /// A header as it is, and data, padded to blocks.
    #[must_use]
    pub fn raw(mut self, header: &Header, data: &[u8]) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A header with changes and a right checksum.
    #[must_use]
    pub fn with(self, header: Header, change: impl FnOnce(&mut Header), data: &[u8]) -> Self {
        let mut header = header;
        change(&mut header);
        header.set_cksum();
        self.raw(&header, data)
    }

    /// An entry of any kind without data.
    #[must_use]
    pub fn entry(self, kind: EntryType, name: &str, link: &str) -> Self {
        self.raw(&Self::header(kind, name, link, 0), b"")
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, name: &str, data: &str) -> Self {
        self.raw(&Self::header(EntryType::Regular, name, "", data.len() as u64), data.as_bytes())
    }

    /// A folder.
    #[must_use]
    pub fn folder(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "")
    }

    /// A symlink.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target)
    }

    /// A hard link.
    #[must_use]
    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target)
    }

    /// A character device.
    #[must_use]
    pub fn device(self, name: &str, major: u32, minor: u32) -> Self {
        let numbers = |header: &mut Header| {
            if let Some(ustar) = header.as_ustar_mut() {
                ustar.set_device_major(major);
                ustar.set_device_minor(minor);
            }
        };
        self.with(Self::header(EntryType::Char, name, "", 0), numbers, b"")
    }

    /// A PAX header for the next entry.
    #[must_use]
    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            data.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
        }
        self.pax_raw(&data)
    }

    /// A PAX header with these bytes.
    #[must_use]
    pub fn pax_raw(self, data: &[u8]) -> Self {
        self.raw(&Self::header(EntryType::XHeader, "PaxHeaders", "", data.len() as u64), data)
    }

    /// The archive with its end mark.
    #[must_use]
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}
