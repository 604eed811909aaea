//! Host names to addresses: `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
//!
//! A static glibc must not ask its own resolver: it would load NSS libraries of the host at run time. This one knows
//! `nameserver`, `search`, `domain`, `options ndots: timeout: attempts:`; no mDNS, no `nsswitch.conf`. Sources: RFC 1035,
//! `resolv.conf(5)`, `hosts(5)`, RFC 6761 for `localhost`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The most that one answer may have over TCP.
const ANSWER_MAX: usize = 65535;
/// Aliases that lead to an address, one after the other.
const ALIASES_MAX: usize = 8;
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 16;

/// What `resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Settings {
    fn parse(text: &str) -> Self {
        let mut all =
            Self { servers: Vec::new(), search: Vec::new(), ndots: 1, timeout: Duration::from_secs(5), attempts: 2 };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // The zone of a link-local address is a number or a name; only numbers are understood.
                    let address = words.next().and_then(|word| match word.split_once('%') {
                        None => Some(SocketAddr::new(word.parse().ok()?, 53)),
                        Some((address, zone)) => {
                            let zone = zone.parse().ok()?;
                            Some(std::net::SocketAddrV6::new(address.parse().ok()?, 53, 0, zone).into())
                        }
                    });
                    all.servers.extend(address);
                }
                Some("search" | "domain") => all.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| all.option(word)),
                _ => {}
            }
        }
        all.servers.truncate(3);
        all.search.truncate(6);
        if all.servers.is_empty() {
            all.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
        }
        all
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }
}

/// The resolver that ureq asks.
#[derive(Debug)]
pub(crate) struct Hosts;

impl Resolver for Hosts {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default);
        let mut found = self.empty();
        for address in addresses(host)?.into_iter().take(ADDRESSES_MAX) {
            found.push(SocketAddr::new(address, port));
        }
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}

fn addresses(host: &str) -> std::io::Result<Vec<IpAddr>> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    let host = bare.trim_end_matches('.').to_ascii_lowercase();
    let listed = in_hosts(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), &host);
    if !listed.is_empty() {
        return Ok(listed);
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let settings = Settings::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    for name in spellings(bare, &settings) {
        let found = ask_for_both(&settings, &name)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// The names to ask for, in the order of `resolv.conf(5)`.
fn spellings(host: &str, settings: &Settings) -> Vec<String> {
    if let Some(absolute) = host.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let searched = settings.search.iter().filter(|domain| *domain != ".").map(|domain| format!("{host}.{domain}"));
    let mut all: Vec<String> = searched.collect();
    let first = host.bytes().filter(|byte| *byte == b'.').count() >= settings.ndots;
    all.insert(if first { 0 } else { all.len() }, host.to_owned());
    all
}

fn ask_for_both(settings: &Settings, name: &str) -> std::io::Result<Vec<IpAddr>> {
    let mut found = ask(settings, name, TYPE::A)?;
    // There are name servers that know one kind of address and never answer a question for the other.
    let attempts = if found.is_empty() { settings.attempts } else { 1 };
    match ask(&Settings { attempts, ..settings.clone() }, name, TYPE::AAAA) {
        Ok(more) => found.extend(more),
        Err(error) if found.is_empty() => return Err(error),
        Err(_) => {}
    }
    Ok(found)
}

/// Asks each server in turn. An error only if none of them gave an answer of any kind.
fn ask(settings: &Settings, name: &str, kind: TYPE) -> std::io::Result<Vec<IpAddr>> {
    let mut failure = None;
    for _ in 0..settings.attempts {
        for server in &settings.servers {
            match ask_one(*server, name, kind, settings.timeout) {
                Ok(found) => return Ok(found),
                Err(error) => {
                    failure =
                        Some(std::io::Error::new(error.kind(), format!("name server {}: {error}", server.ip())));
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| std::io::Error::other("there is no name server")))
}

fn ask_one(server: SocketAddr, name: &str, kind: TYPE, timeout: Duration) -> std::io::Result<Vec<IpAddr>> {
    let id = random()?;
    let query = query(id, name, kind)?;
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local)?;
    // Connected, so that the kernel drops what comes from anybody else.
    socket.connect(server)?;
    socket.send(&query)?;
    let deadline = Instant::now() + timeout;
    let mut buffer = [0u8; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        };
        match read_answer(&buffer[..length], id, name, kind) {
            Answer::Addresses(found) => return Ok(found),
            Answer::Truncated => return over_tcp(server, &query, id, name, kind, timeout),
            Answer::Failed(code) => return Err(std::io::Error::other(format!("it answered {code:?}"))),
            Answer::NotOurs => {}
        }
    }
}

fn over_tcp(
    server: SocketAddr,
    query: &[u8],
    id: u16,
    name: &str,
    kind: TYPE,
    timeout: Duration,
) -> std::io::Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let length = u16::try_from(query.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat())?;
    let mut length = [0u8; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length)).min(ANSWER_MAX)];
    stream.read_exact(&mut answer)?;
    match read_answer(&answer, id, name, kind) {
        Answer::Addresses(found) => Ok(found),
        Answer::Failed(code) => Err(std::io::Error::other(format!("it answered {code:?}"))),
        Answer::Truncated | Answer::NotOurs => Err(std::io::Error::other("it answered something else")),
    }
}

fn query(id: u16, name: &str, kind: TYPE) -> std::io::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let wrong = |error: simple_dns::SimpleDnsError| std::io::Error::other(format!("the name {name:?}: {error}"));
    let name = Name::new(name).map_err(wrong)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(std::io::Error::other)
}

enum Answer {
    Addresses(Vec<IpAddr>),
    Truncated,
    Failed(RCODE),
    /// Not an answer to what was asked: somebody else's, or nonsense.
    NotOurs,
}

fn read_answer(data: &[u8], id: u16, name: &str, kind: TYPE) -> Answer {
    let Ok(packet) = Packet::parse(data) else { return Answer::NotOurs };
    let same =
        |asked: &Question<'_>| asked.qname.to_string().eq_ignore_ascii_case(name) && asked.qtype == QTYPE::TYPE(kind);
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !packet.questions.first().is_some_and(same) {
        return Answer::NotOurs;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Answer::Truncated;
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Answer::Addresses(Vec::new()),
        code => return Answer::Failed(code),
    }
    // Only addresses of the name itself or of what it is an alias of.
    let mut names = vec![name.to_ascii_lowercase()];
    for _ in 0..ALIASES_MAX {
        for record in &packet.answers {
            let owner = record.name.to_string().to_ascii_lowercase();
            if let RData::CNAME(target) = &record.rdata {
                let target = target.0.to_string().to_ascii_lowercase();
                if names.contains(&owner) && !names.contains(&target) {
                    names.push(target);
                }
            }
        }
    }
    let found = packet.answers.iter().filter(|record| names.contains(&record.name.to_string().to_ascii_lowercase()));
    let found = found.filter_map(|record| match &record.rdata {
        RData::A(address) => Some(IpAddr::V4(Ipv4Addr::from(address.address))),
        RData::AAAA(address) => Some(IpAddr::V6(Ipv6Addr::from(address.address))),
        _ => None,
    });
    Answer::Addresses(found.take(ADDRESSES_MAX).collect())
}

fn random() -> std::io::Result<u16> {
    let mut bytes = [0u8; 2];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(u16::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, CNAME};

    fn reply(id: u16, name: &str, records: &[(&str, RData<'static>)]) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        let name = Name::new_unchecked(name).into_owned();
        packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::A), CLASS::IN.into(), false));
        for (owner, data) in records {
            let owner = Name::new_unchecked(owner).into_owned();
            packet.answers.push(ResourceRecord::new(owner, CLASS::IN, 60, data.clone()));
        }
        packet.build_bytes_vec().expect("a packet")
    }

    fn a(address: [u8; 4]) -> RData<'static> {
        RData::A(A { address: u32::from_be_bytes(address) })
    }

    #[test]
    fn settings_are_read_as_resolv_conf_has_them() {
        let settings = Settings::parse(
            "# c\nnameserver 10.0.0.1\nnameserver fe80::1%3 ; x\nsearch a.example b.example\noptions ndots:2 timeout:1 rotate attempts:9\n",
        );
        assert_eq!(settings.servers[0], "10.0.0.1:53".parse().expect("an address"));
        assert_eq!((settings.servers.len(), settings.ndots, settings.attempts), (2, 2, 5));
        assert_eq!(spellings("x.y", &settings), ["x.y.a.example", "x.y.b.example", "x.y"]);
        assert_eq!(spellings("x.y.z", &settings)[0], "x.y.z");
        assert_eq!(spellings("x.", &settings), ["x"]);
        assert_eq!(Settings::parse("").servers, ["127.0.0.1:53".parse().expect("an address")]);
    }

    #[test]
    fn hosts_come_before_any_server() {
        let text = "127.0.0.1 localhost\n10.1.1.1 Registry.Test reg # note\n::5 registry.test\n";
        let found: Vec<String> = in_hosts(text, "registry.test").iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["10.1.1.1", "::5"]);
        assert!(in_hosts(text, "note").is_empty());
        assert_eq!(addresses("[::1]").expect("an address"), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        assert!(!addresses("a.localhost").expect("addresses").is_empty());
    }

    #[test]
    fn an_answer_counts_for_its_question_alone() {
        let cname = RData::CNAME(CNAME(Name::new_unchecked("real.test").into_owned()));
        let records = [("x.test", cname), ("real.test", a([10, 0, 0, 7])), ("other.test", a([6, 6, 6, 6]))];
        let data = reply(7, "x.test", &records);
        let Answer::Addresses(found) = read_answer(&data, 7, "x.test", TYPE::A) else { panic!("no addresses") };
        assert_eq!(found, ["10.0.0.7".parse::<IpAddr>().expect("an address")]);
        assert!(matches!(read_answer(&data, 8, "x.test", TYPE::A), Answer::NotOurs), "another id");
        assert!(matches!(read_answer(&data, 7, "y.test", TYPE::A), Answer::NotOurs), "another name");
        assert!(matches!(read_answer(&data[..9], 7, "x.test", TYPE::A), Answer::NotOurs), "cut short");
    }

    #[test]
    fn a_name_server_is_asked_over_udp_and_nonsense_is_ignored() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = server.local_addr().expect("its address");
        let thread = std::thread::spawn(move || {
            let mut buffer = [0u8; 512];
            let (_, client) = server.recv_from(&mut buffer).expect("a question");
            let id = u16::from_be_bytes([buffer[0], buffer[1]]);
            for answer in [
                b"nonsense".to_vec(),
                reply(id.wrapping_add(1), "x.test", &[("x.test", a([6, 6, 6, 6]))]),
                reply(id, "x.test", &[("x.test", a([10, 0, 0, 9]))]),
            ] {
                server.send_to(&answer, client).expect("an answer");
            }
        });
        let found = ask_one(address, "x.test", TYPE::A, Duration::from_secs(5)).expect("addresses");
        assert_eq!(found, ["10.0.0.9".parse::<IpAddr>().expect("an address")]);
        thread.join().expect("the server");
    }
}
