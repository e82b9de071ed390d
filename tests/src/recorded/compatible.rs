//! What a schema must leave as it was for the release before to be understood. Pure: two schemas are compared.
//!
//! Fields, values and calls may be added. A field may go if its number is reserved, because whoever sends it is read without it; an
//! enum's value and a call may not, because somebody uses them.

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ServiceDescriptor};

use super::Schema;

/// Everything in which the newer schema breaks with the older one, in sentences; nothing, when they go together.
pub fn breaks(older: &Schema, newer: &Schema) -> Vec<String> {
    let mut found = Vec::new();
    for message in older.0.all_messages() {
        match newer.0.get_message_by_name(message.full_name()) {
            Some(now) => of_message(&message, &now, &mut found),
            None => found.push(format!("message {} is gone", message.full_name())),
        }
    }
    for kind in older.0.all_enums() {
        match newer.0.get_enum_by_name(kind.full_name()) {
            Some(now) => of_enum(&kind, &now, &mut found),
            None => found.push(format!("enum {} is gone", kind.full_name())),
        }
    }
    for service in older.0.services() {
        match newer.0.get_service_by_name(service.full_name()) {
            Some(now) => of_service(&service, &now, &mut found),
            None => found.push(format!("service {} is gone", service.full_name())),
        }
    }
    found
}

fn of_message(was: &MessageDescriptor, is: &MessageDescriptor, found: &mut Vec<String>) {
    let reserved = |message: &MessageDescriptor, number| message.reserved_ranges().any(|range| range.contains(&number));
    for field in was.fields() {
        let number = field.number();
        match is.get_field(number) {
            None if reserved(is, number) => {}
            None => found.push(format!("{} is gone, and its number {number} is not reserved", field.full_name())),
            Some(now) if now.name() != field.name() => {
                found.push(format!("number {number} of {} is used again for {}", field.full_name(), now.name()));
            }
            Some(now) if shape(&now) != shape(&field) => {
                found.push(format!("{} was {}, and is {}", field.full_name(), shape(&field), shape(&now)));
            }
            Some(_) => {}
        }
    }
    let again = is.fields().filter(|field| reserved(was, field.number()));
    found.extend(again.map(|field| format!("{} takes the reserved number {}", field.full_name(), field.number())));
}

/// What a field is on the wire, and whether it can be told from one that is not set.
fn shape(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(kind) => kind.full_name().to_owned(),
        plain => format!("{plain:?}"),
    };
    let many = if field.is_list() { "repeated " } else { "" };
    let presence = if field.supports_presence() { "optional " } else { "" };
    let one_of = field.containing_oneof().map(|one| format!(" of {}", one.name())).unwrap_or_default();
    format!("{many}{presence}{kind}{one_of}")
}

fn of_enum(was: &EnumDescriptor, is: &EnumDescriptor, found: &mut Vec<String>) {
    for value in was.values() {
        match is.get_value(value.number()) {
            None => found.push(format!("{} is gone", value.full_name())),
            Some(now) if now.name() != value.name() => {
                found.push(format!("number {} of {} means {} now", value.number(), value.full_name(), now.name()));
            }
            Some(_) => {}
        }
    }
}

fn of_service(was: &ServiceDescriptor, is: &ServiceDescriptor, found: &mut Vec<String>) {
    let form = |method: &MethodDescriptor| {
        let stream = |streams| if streams { "stream " } else { "" };
        let (input, output) = (method.input(), method.output());
        let (asks, answers) = (stream(method.is_client_streaming()), stream(method.is_server_streaming()));
        format!("({asks}{}) returns ({answers}{})", input.full_name(), output.full_name())
    };
    for method in was.methods() {
        match is.methods().find(|now| now.name() == method.name()) {
            None => found.push(format!("call {} is gone", method.full_name())),
            Some(now) if form(&now) != form(&method) => {
                found.push(format!("call {} was {}, and is {}", method.full_name(), form(&method), form(&now)));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::{
        DescriptorPool,
        prost::Message as _,
        prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet, descriptor_proto::ReservedRange},
    };

    use super::{Schema, breaks};

    const FILE: &str = "feather/agent/v1/tenant.proto";

    fn message<'a>(file: &'a mut FileDescriptorProto, name: &str) -> &'a mut DescriptorProto {
        file.message_type.iter_mut().find(|one| one.name() == name).expect("a message of the schema")
    }

    /// What is found when one file of the schema is changed so.
    fn found(change: impl FnOnce(&mut FileDescriptorProto)) -> Vec<String> {
        let mut set = FileDescriptorSet::decode(feather_proto::pb::DESCRIPTORS).unwrap();
        change(set.file.iter_mut().find(|file| file.name() == FILE).unwrap());
        breaks(&Schema::current(), &Schema(DescriptorPool::from_file_descriptor_set(set).unwrap()))
    }

    #[test]
    fn what_is_added_or_reserved_breaks_nothing() {
        assert!(found(|_| {}).is_empty());
        let added = found(|file| {
            let message = message(file, "ReclaimTenantRequest");
            let mut field = message.field[0].clone();
            (field.name, field.json_name, field.number) = (Some("colour".into()), Some("colour".into()), Some(99));
            message.field.push(field);
        });
        assert!(added.is_empty(), "{added:?}");
        let retired = found(|file| {
            let message = message(file, "ReclaimTenantRequest");
            message.field.retain(|field| field.number() != 4);
            message.reserved_range.push(ReservedRange { start: Some(4), end: Some(5) });
        });
        assert!(retired.is_empty(), "{retired:?}");
    }

    #[test]
    fn what_breaks_is_named() {
        type Change = fn(&mut FileDescriptorProto);
        let cases: &[(Change, &str)] = &[
            (
                |file| message(file, "ReclaimTenantRequest").field.retain(|field| field.number() != 4),
                "feather.agent.v1.ReclaimTenantRequest.needs_data is gone, and its number 4 is not reserved",
            ),
            (
                |file| message(file, "ReclaimTenantRequest").field[3].name = Some("colour".into()),
                "number 4 of feather.agent.v1.ReclaimTenantRequest.needs_data is used again for colour",
            ),
            (
                |file| message(file, "ReclaimTenantRequest").field[3].r#type = Some(9),
                "feather.agent.v1.ReclaimTenantRequest.needs_data was bool, and is string",
            ),
            (
                |file| message(file, "ReclaimTenantRequest").field[3].label = Some(3),
                "feather.agent.v1.ReclaimTenantRequest.needs_data was bool, and is repeated bool",
            ),
            (
                |file| file.service[0].method.retain(|method| method.name() != "ReclaimTenant"),
                "call feather.agent.v1.TenantService.ReclaimTenant is gone",
            ),
            (
                |file| file.service[0].method[0].server_streaming = Some(true),
                "call feather.agent.v1.TenantService.AddTenant was (feather.agent.v1.AddTenantRequest) returns \
                 (feather.agent.v1.AddTenantResponse), and is (feather.agent.v1.AddTenantRequest) returns (stream \
                 feather.agent.v1.AddTenantResponse)",
            ),
            (|file| file.service.clear(), "service feather.agent.v1.TenantService is gone"),
            (|file| drop(file.enum_type[0].value.pop()), "feather.agent.v1.RESIDENCE_DEPARTED is gone"),
            (
                |file| file.enum_type[0].value[5].name = Some("RESIDENCE_FLOWN".into()),
                "number 5 of feather.agent.v1.RESIDENCE_DEPARTED means RESIDENCE_FLOWN now",
            ),
        ];
        for (change, wanted) in cases {
            assert_eq!(found(change), [*wanted]);
        }
    }

    #[test]
    fn a_reserved_number_is_not_taken_again() {
        let with = |reserved: bool| {
            let mut set = FileDescriptorSet::decode(feather_proto::pb::DESCRIPTORS).unwrap();
            let file = set.file.iter_mut().find(|file| file.name() == FILE).unwrap();
            let message = message(file, "ReclaimTenantRequest");
            if reserved {
                message.field.retain(|field| field.number() != 4);
                message.reserved_range.push(ReservedRange { start: Some(4), end: Some(5) });
            }
            Schema(DescriptorPool::from_file_descriptor_set(set).unwrap())
        };
        let wanted = "feather.agent.v1.ReclaimTenantRequest.needs_data takes the reserved number 4";
        assert_eq!(breaks(&with(true), &with(false)), [wanted]);
    }
}
