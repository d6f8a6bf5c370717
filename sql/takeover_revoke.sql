revoke execute on function {{ function }} from {{ grantees }} cascade;
