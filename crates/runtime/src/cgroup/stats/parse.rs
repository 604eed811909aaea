//! The kernel's texts. Pure; `None` is a text of another form.

use std::collections::BTreeMap;

use super::{BlkioEntry, Interface, Pressure, Stall};

/// A number, or `max` for the largest.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// Lines of a word and a number.
pub(super) fn keyed(text: &str) -> Option<BTreeMap<String, u64>> {
    text.lines()
        .map(|line| {
            let (key, value) = line.trim().split_once(' ')?;
            Some((key.to_owned(), number(value)?))
        })
        .collect()
}

/// `0-2,7`.
pub(super) fn list(text: &str) -> Option<Vec<u16>> {
    let mut all = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(all)
}

/// Lines like `some avg10=0.00 avg60=0.12 avg300=0.50 total=1234`.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let (kind, values) = line.split_once(' ')?;
        let value = |key: &str| values.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let share = |key| value(key)?.parse().ok();
        let stall = Stall {
            avg10: share("avg10")?,
            avg60: share("avg60")?,
            avg300: share("avg300")?,
            total: value("total")?.parse().ok()?,
        };
        match kind {
            "some" => pressure.some = stall,
            "full" => pressure.full = stall,
            _ => return None,
        }
    }
    Some(pressure)
}

/// v1's `8:0 Read 4096`, `8:0 Total 8192` or `8:0 12`. The line that begins with `Total` sums up the devices and is left.
pub(super) fn devices(text: &str) -> Option<Vec<BlkioEntry>> {
    let mut all = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (device, op, value) = match words[..] {
            ["Total", _] | [] => continue,
            [device, op, value] => (device, op, value),
            [device, value] => (device, "", value),
            _ => return None,
        };
        all.push(entry(device, op, value)?);
    }
    Some(all)
}

/// The value of `key` for each device in v2's `8:0 rbytes=4096 wbytes=0 …`, as `op`.
pub(super) fn device_key(text: &str, key: &str, op: &str) -> Option<Vec<BlkioEntry>> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next()?;
        let Some(value) = words.find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')) else { continue };
        all.push(entry(device, op, value)?);
    }
    Some(all)
}

fn entry(device: &str, op: &str, value: &str) -> Option<BlkioEntry> {
    let (major, minor) = device.split_once(':')?;
    Some(BlkioEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        op: op.to_owned(),
        value: value.parse().ok()?,
    })
}

/// The interfaces of a network namespace, from its /proc/PID/net/dev, after whose two lines of headings there are a name and
/// sixteen numbers in each. Lines of another form are left out.
pub fn interfaces(text: &str) -> Vec<Interface> {
    let one = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        // Of each direction there are eight, of which the first four are told.
        let (receive, transmit) = (numbers.get(..4)?, numbers.get(8..12)?);
        Some(Interface {
            name: name.trim().to_owned(),
            rx_bytes: receive[0],
            rx_packets: receive[1],
            rx_errors: receive[2],
            rx_dropped: receive[3],
            tx_bytes: transmit[0],
            tx_packets: transmit[1],
            tx_errors: transmit[2],
            tx_dropped: transmit[3],
        })
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_spelled_out() {
        assert_eq!(list("0-2,7\n"), Some(vec![0, 1, 2, 7]));
        assert_eq!(list("\n"), Some(vec![]));
        assert_eq!(list("0-x"), None);
    }

    #[test]
    fn pressure_has_two_lines_or_one() {
        let text =
            "some avg10=0.10 avg60=1.00 avg300=2.50 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let both = pressure(text).unwrap();
        assert_eq!((both.some.avg300, both.some.total, both.full.total), (2.5, 77, 5));
        assert_eq!(pressure("some avg10=0.1 avg60=0 avg300=0 total=9\n").unwrap().full, Stall::default());
        assert_eq!(pressure("some avg10=0.1\n"), None);
    }

    #[test]
    fn devices_have_numbers_operations_and_values() {
        let entry = |major, minor, op: &str, value| BlkioEntry { major, minor, op: op.into(), value };
        assert_eq!(
            devices("8:0 Read 4096\n8:0 Total 4096\n8:16 3\nTotal 4099\n").unwrap(),
            [entry(8, 0, "Read", 4096), entry(8, 0, "Total", 4096), entry(8, 16, "", 3)]
        );
        assert_eq!(devices("8:0 Read x\n"), None);
        let text = "8:0 rbytes=7 wbytes=8 rios=1\n254:0 \n";
        assert_eq!(device_key(text, "wbytes", "Write").unwrap(), [entry(8, 0, "Write", 8)]);
    }

    #[test]
    fn interfaces_are_below_the_headings() {
        let text =
            "Inter-|   Receive  |  Transmit\n face |bytes packets errs\n    lo: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";
        let [lo] = &interfaces(text)[..] else { panic!("one interface") };
        assert_eq!((&*lo.name, lo.rx_bytes, lo.rx_dropped, lo.tx_bytes, lo.tx_dropped), ("lo", 1, 4, 5, 8));
    }
}
