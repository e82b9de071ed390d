//! Which operations are listed, and what is said when there are none.

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
};
use insta::assert_snapshot;

use crate::{controller::Controller, lists::operation};

#[tokio::test]
async fn operation_list_tells_who_never_was_from_who_has_no_operations() {
    let controller = Controller::start().await;
    let none = pb::ListOperationsResponse::default;
    let unknown =
        Error::not_found(reason::TENANT_NOT_FOUND, "there is no tenant bob; `featherctl tenant list` shows all");
    controller.answers("ListOperations", none()).refuses("GetTenant", unknown.with("tenant", "bob"));
    assert_snapshot!(controller.run("operation list --tenant bob").await, @r"
    --- stderr
    error: there is no tenant bob, and no operation of the log names it
    next: `featherctl tenant list --all` shows the tenants there are
    --- exit 1
    ");
    let adopted = pb::Tenant { name: "carol".into(), ..Default::default() };
    controller.answers("ListOperations", none());
    controller.answers("GetTenant", pb::GetTenantResponse { tenant: Some(adopted) });
    assert_snapshot!(controller.run("operation list --tenant carol").await, @r"
    --- stderr
    There are no operations of carol yet; `featherctl tenant show carol` shows it.
    --- exit 0
    ");
    // Of a tenant that was removed, or never came to be, the log is all there is: nobody is asked for it.
    controller.answers("ListOperations", pb::ListOperationsResponse { operations: vec![operation()] });
    let ran = controller.run("operation list --tenant alice --output json").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran}");
    assert_snapshot!(controller.calls(), @r#"
    ListOperations: ListOperationsRequest { tenant: "bob", limit: 50 }
    GetTenant: GetTenantRequest { tenant: "bob" }
    ListOperations: ListOperationsRequest { tenant: "carol", limit: 50 }
    GetTenant: GetTenantRequest { tenant: "carol" }
    ListOperations: ListOperationsRequest { tenant: "alice", limit: 50 }
    "#);
}
