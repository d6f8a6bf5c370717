//! Members of JSON objects, with the path of whatever is wrong.

use crate::core::json::Node;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    /// Like `$.syncs.shop.every`.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

impl Broken {
    pub fn new(path: &str, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }
}

/// The members of an object that may have these.
pub(super) struct Members<'a> {
    path: String,
    members: &'a [(String, Node)],
}

impl<'a> Members<'a> {
    /// Those of a node; refuses unknown ones and such as are there twice.
    pub fn of(node: &'a Node, path: &str, known: &[&str]) -> Result<Self, Broken> {
        let Node::Object(members) = node else { return Err(Broken::new(path, "must be an object")) };
        for (i, (name, _)) in members.iter().enumerate() {
            let path = format!("{path}.{name}");
            if !known.contains(&name.as_str()) {
                return Err(Broken::new(&path, format!("is unknown; known are {}", known.join(", "))));
            }
            if members[..i].iter().any(|(earlier, _)| earlier == name) {
                return Err(Broken::new(&path, "is there twice; remove one"));
            }
        }
        Ok(Self { path: path.to_owned(), members })
    }

    pub fn path_of(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    pub fn get(&self, name: &str) -> Option<&'a Node> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, node)| node)
    }

    /// A string.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Broken> {
        match self.get(name) {
            None => Ok(None),
            Some(Node::String(text)) => Ok(Some(text)),
            Some(_) => Err(Broken::new(&self.path_of(name), "must be a string")),
        }
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Broken> {
        match self.get(name) {
            None => Ok(default),
            Some(Node::Bool(flag)) => Ok(*flag),
            Some(_) => Err(Broken::new(&self.path_of(name), "must be true or false")),
        }
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Broken> {
        match self.get(name) {
            None => Ok(None),
            Some(Node::Number(number)) => Ok(Some(*number)),
            Some(_) => Err(Broken::new(&self.path_of(name), "must be a whole number")),
        }
    }

    /// A list of strings, none of them empty.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Broken> {
        self.get(name).map(|node| texts(node, &self.path_of(name))).transpose()
    }
}

/// A list of strings, or a single one.
pub(super) fn texts(node: &Node, path: &str) -> Result<Vec<String>, Broken> {
    let text = |node: &Node, path: &str| match node {
        Node::String(text) if !text.is_empty() => Ok(text.clone()),
        _ => Err(Broken::new(path, "must be a string that is not empty")),
    };
    match node {
        Node::Array(list) => list.iter().enumerate().map(|(i, node)| text(node, &format!("{path}[{i}]"))).collect(),
        Node::String(_) => Ok(vec![text(node, path)?]),
        _ => Err(Broken::new(path, "must be a list of strings")),
    }
}

/// Members of any name, each with its path.
pub(super) fn members<'a>(node: Option<&'a Node>, path: &str) -> Result<Vec<(String, &'a Node, String)>, Broken> {
    let members = match node {
        None => return Ok(Vec::new()),
        Some(Node::Object(members)) => members,
        Some(_) => return Err(Broken::new(path, "must be an object")),
    };
    let mut all: Vec<(String, &Node, String)> = Vec::new();
    for (name, node) in members {
        let path = format!("{path}.{name}");
        if all.iter().any(|(earlier, ..)| earlier == name) {
            return Err(Broken::new(&path, "is there twice; remove one"));
        }
        all.push((name.clone(), node, path));
    }
    Ok(all)
}
