//! The value of `--cluster`: who founds, and where each is reached.

use crate::paxos::NodeId;
use crate::paxos::membership::MEMBERS_MAX;
use std::str::FromStr;

/// One founder and its address, `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// Where, as it was written: numeric or a name.
    pub address: String,
}

/// `ID=HOST:PORT,...` with distinct ids and distinct addresses, ascending by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterList(Vec<Member>);

impl Member {
    /// The port of the address.
    pub fn port(&self) -> u16 {
        split_port(&self.address).map_or(0, |(_, port)| port)
    }
}

impl ClusterList {
    /// The members, ascending by id.
    pub fn members(&self) -> &[Member] {
        &self.0
    }

    /// The members, ascending by id.
    pub fn into_members(self) -> Vec<Member> {
        self.0
    }

    /// The member of that id.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.0.iter().find(|member| member.node == node)
    }
}

impl FromStr for ClusterList {
    type Err = String;

    fn from_str(list: &str) -> Result<ClusterList, String> {
        let mut members: Vec<Member> = Vec::new();
        for item in list.split(',') {
            let member = parse_member(item.trim())?;
            if members.iter().any(|other| other.node == member.node) {
                return Err(format!("id {} stands twice", member.node.0));
            }
            if members.iter().any(|other| other.address == member.address) {
                return Err(format!("address {} stands twice", member.address));
            }
            members.push(member);
        }
        if members.len() > MEMBERS_MAX {
            return Err(format!(
                "{} nodes; at most {MEMBERS_MAX} can found a cluster",
                members.len()
            ));
        }
        members.sort_by_key(|member| member.node);
        Ok(ClusterList(members))
    }
}

fn parse_member(item: &str) -> Result<Member, String> {
    let (id, address) = item
        .split_once('=')
        .ok_or_else(|| format!("'{item}' is not ID=HOST:PORT"))?;
    let node = match id.parse::<u16>() {
        Ok(id) if id > 0 => NodeId(id),
        _ => return Err(format!("'{id}' is no node id (1..=65535)")),
    };
    if split_port(address).is_none() {
        return Err(format!("'{address}' is not HOST:PORT"));
    }
    Ok(Member {
        node,
        address: address.to_string(),
    })
}

/// Host and port of `host:port`, `1.2.3.4:port` or `[v6]:port`; none if it is not one, or the port is 0.
pub fn split_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    (!host.is_empty() && !bare_v6 && !host.contains(char::is_whitespace)).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["a:1", "127.0.0.1:7001", "[::1]:7001", "db-1.example:65535"] {
            assert!(split_port(good).is_some(), "{good}");
        }
        for bad in ["a", "a:", ":7001", "a:0", "a:65536", "::1:7001", "a b:1"] {
            assert!(split_port(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_list_is_sorted_by_id() {
        let list: ClusterList = "3=c:1,1=a:1,2=b:1".parse().unwrap();
        let ids: Vec<u16> = list.members().iter().map(|member| member.node.0).collect();
        assert_eq!(ids, [1, 2, 3]);
    }
}
