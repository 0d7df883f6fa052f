-- expand: from before rollouts ran migrations: it has run while nothing else did
-- The version of the list of settings is the greatest audit_id of any of them. It is asked for several times a second.
create index setting_audit_setting on setting_audit (audit_id) where subject <> 'school-profile';

---- create above / drop below ----

drop index setting_audit_setting;
